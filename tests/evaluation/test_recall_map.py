"""The map of where painted lesions are found: smoothed as it says, blank without support, and no louder than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hybriduad.evaluation.recall_map import (
    FEWEST,
    PICTURE,
    REACH_MM,
    STEP_MM,
    SUPPORT,
    VOLUME,
    recall_map,
    relative_mm,
    write_recall_map,
)
from hybriduad.scan.template import template


def lesions(number: int, *, left_only: bool, registered: bool) -> list[dict[str, Any]]:
    """Lesions all over the box around the brain, of which those on the left are found, or every second one."""
    places = np.random.default_rng(0).random((number, 3))
    return [
        {
            "size_ml": "1-3" if index % 2 else "3-10",
            "contrast": "clear",
            "found": bool(place[0] < 0.5) if left_only else bool(index // 2 % 2),
            "place": place.tolist(),
            **({"template_mm": relative_mm(place[None])[0].tolist()} if registered else {}),
        }
        for index, place in enumerate(places)
    ]


def test_a_place_has_the_recall_of_the_lesions_near_it() -> None:
    """Against the definition at a few voxels; two classes, of which one is found more often."""
    rng = np.random.default_rng(1)
    places = relative_mm(rng.random((400, 3)))
    classes = ["small" if index % 4 else "large" for index in range(400)]
    found = rng.random(400) < np.where(np.array(classes) == "large", 0.9, 0.3)
    made = recall_map(places, found, classes)
    average = {name: found[np.array(classes) == name].mean() for name in ("small", "large")}
    voxels = np.argwhere(~np.isnan(made.recall))
    for voxel in voxels[:: max(1, len(voxels) // 20)]:
        centre = made.affine[:3, :3] @ voxel + made.affine[:3, 3]
        weights = [max(0.0, 1 - (np.linalg.norm(place - centre) / REACH_MM) ** 2) for place in places]
        assert made.support[tuple(voxel)] == pytest.approx(sum(weights), rel=1e-4)
        more = [weight * (hit - average[name]) for weight, hit, name in zip(weights, found, classes, strict=True)]
        expected = min(1.0, max(0.0, found.mean() + sum(more) / sum(weights)))
        assert made.recall[tuple(voxel)] == pytest.approx(expected, abs=1e-4)
    np.testing.assert_array_equal(np.isnan(made.recall), ~made.brain | (made.support < FEWEST))
    assert abs(np.diag(made.affine)[:3] - STEP_MM).max() == 0
    assert made.p > 0.05


def test_a_blind_half_is_seen_and_chance_is_named_as_such(tmp_path: Path) -> None:
    (said,) = write_recall_map(tmp_path, lesions(400, left_only=True, registered=True))
    assert "p = 0.005" in said
    assert "in template space" in said
    assert "200 of 1-3 ml, 200 of 3-10 ml" in said
    recall, support = (nib.load(tmp_path / name) for name in (VOLUME, SUPPORT))
    values = np.asarray(recall.dataobj)
    middle = float(template().box_mm[:, 0].mean())
    across = recall.affine[0, 0] * np.arange(values.shape[0]) + recall.affine[0, 3] - middle
    assert np.nanmin(values[across < -REACH_MM]) > 0.9
    assert np.nanmax(values[across > REACH_MM]) < 0.1
    assert np.isnan(values[np.asarray(support.dataobj) < FEWEST]).all()
    assert (tmp_path / PICTURE).stat().st_size > 5000
    (said,) = write_recall_map(tmp_path, lesions(400, left_only=False, registered=False))
    assert "which is no anatomy" in said
    assert float(said.rsplit("p = ", 1)[1].rstrip(".")) > 0.05
    assert not (tmp_path / VOLUME).exists()  # a volume would say that the places are those of the template


def test_what_is_found_everywhere_or_too_thinly_painted(tmp_path: Path) -> None:
    every = [lesion | {"found": True} for lesion in lesions(300, left_only=True, registered=False)]
    (said,) = write_recall_map(tmp_path, every)
    assert "from 100% to 100%" in said
    assert "nothing is uneven" in said
    (said,) = write_recall_map(tmp_path, every[:12])
    assert said.startswith("No map of places")
    assert not (tmp_path / PICTURE).exists()
