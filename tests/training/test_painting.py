"""Anomalies painted in 3D into whole volumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from tiny import generators, prepared_cases

from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.scan.preparation import Prepared
from hybriduad.training.painting import Painted, paint_volume, run_with_anomalies

WITHOUT_LABELS = sorted(set(plugins.names("anomalies")) - {"transplant"})
FOREIGN = ("foreign-patch", "poisson", "texture-swap")


@pytest.fixture(scope="module")
def prepared(tiny_cohort: Path) -> list[Prepared]:
    return prepared_cases(tiny_cohort)


def config(name: str, **more: Any) -> Any:
    return plugins.load("anomalies", name).Config(name=name, **more)


def paint(volume: Any, *anomalies: Any, subject: str = "03", others: tuple[Callable[[], Any], ...] = ()) -> Painted:
    return paint_volume(volume, anomalies, seed=4, identity=("tiny", subject), others=others)


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_every_generator_paints_a_lesion_across_slices_and_nothing_else(name: str, prepared: list[Prepared]) -> None:
    healthy = prepared[2]
    before, clean = generators(), np.array(healthy.image)
    others = (lambda: prepared[0],)
    drawn = [paint(healthy, config(name), subject=subject, others=others) for subject in ("03", "04", "05", "03")]
    assert generators() == before
    assert np.array_equal(healthy.image, clean)
    for painted, generator in drawn:
        assert generator == name
        assert not (painted.lesion & ~healthy.brain).any()
        change = np.abs(painted.image - clean).max(axis=0)
        assert not change[~(painted.lesion | painted.ignore)].any()
        assert change[painted.lesion].max() > 0.05
    assert max(painted.lesion.any(axis=(0, 1)).sum() for painted, _ in drawn) > 1
    assert np.array_equal(drawn[3].corruption.image, drawn[0].corruption.image)
    assert len({painted.lesion.tobytes() for painted, _ in drawn}) == 3


def test_generators_are_drawn_by_their_weights(prepared: list[Prepared]) -> None:
    anomalies = config("smooth-intensity", weight=3.0), config("coarse-noise")
    drawn = [paint(prepared[2], *anomalies, subject=str(number)).generator for number in range(24)]
    assert 14 <= drawn.count("smooth-intensity") <= 22
    assert set(drawn) == {"smooth-intensity", "coarse-noise"}


def test_what_no_contrast_covers_stays_as_it_is(prepared: list[Prepared]) -> None:
    healthy = prepared[2]
    valid = np.array(healthy.valid)
    valid[..., : valid.shape[-1] // 2] = False
    image = np.where(valid, healthy.image, np.float32(-1))
    half = replace(healthy, image=image, valid=valid)
    painted, _ = paint(half, config("smooth-intensity", diameter_mm=(90.0, 90.0)))
    assert not painted.lesion[..., : valid.shape[-1] // 2].any()
    assert np.array_equal(painted.image[~valid], image[~valid])


@pytest.mark.parametrize("name", FOREIGN)
def test_tissue_of_another_person_whose_volume_has_another_shape(name: str, prepared: list[Prepared]) -> None:
    """A donor cut to the box around its brain lends what the whole volume lends."""
    whole = prepared[0]
    box = ndimage.find_objects(whole.brain.astype(np.uint8))[0]
    cut = SimpleNamespace(
        image=whole.image[:, *box], valid=whole.valid[:, *box], brain=whole.brain[box], spacing_mm=whole.spacing_mm
    )
    assert cut.brain.shape != whole.brain.shape
    anomaly = config(name, same_scan=0.0)
    of_whole, of_cut, of_none = (
        paint(prepared[2], anomaly, others=others)[0] for others in ((lambda: whole,), (lambda: cut,), ())
    )
    assert np.array_equal(of_cut.lesion, of_whole.lesion)
    np.testing.assert_allclose(of_cut.image, of_whole.image, atol=2e-3)
    assert np.abs(of_none.image - of_whole.image).max() > 0.05


def test_people_whose_scans_cannot_be_used_are_passed_over(prepared: list[Prepared]) -> None:
    def broken() -> Prepared:
        raise DataError("damaged")

    anomaly = config("poisson", same_scan=0.0)
    alone = paint(prepared[2], anomaly, others=(broken, lambda: prepared[0], broken))[0]
    assert alone.lesion.any()
    with pytest.raises(DataError, match=r"no other scan to take tissue from: got 2, none of which can be used\.$"):
        paint(prepared[2], anomaly, others=(broken, broken))


def test_nothing_that_shows_is_an_error(prepared: list[Prepared]) -> None:
    empty = replace(prepared[2], brain=np.zeros_like(prepared[2].brain))
    with pytest.raises(DataError, match=r"no lesion could be painted: got 8 draws that hardly show"):
        paint(empty, config("perlin"))


def test_anomalies_of_a_config() -> None:
    run, anomalies = run_with_anomalies("few-labels", ["seed=9"])
    assert run.seed == 9
    assert [anomaly.name for anomaly in anomalies] == ["lesion", "lesion"]  # without the transplants of its mix
    with pytest.raises(ConfigError, match="that needs no labelled slices"):
        run_with_anomalies("few-labels", ["anomalies=[{name: transplant}]"])
    with pytest.raises(ConfigError, match="config of many trainings in benchmark-quick"):
        run_with_anomalies("benchmark-quick")
