"""Painted beside real lesions: contrasts and sections measured, recall counted, and weighed by real contrasts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hybriduad.evaluation.lesion_contrast import contrast_class, contrast_of, look_of
from hybriduad.evaluation.recall_comparison import comparison_rows, comparison_words, counted, mean_difference
from hybriduad.scan.volumes import VolumeGrid
from hybriduad.training.native_volume import NativeVolume

SPACING = (1.0, 2.0, 5.0)


@pytest.fixture(scope="module")
def volume() -> NativeVolume:
    """Tissue that gets brighter from left to right, with a lesion of two parts in its second slice."""
    shape = (40, 30, 5)
    image = np.broadcast_to(np.linspace(-0.5, 0.3, 40, dtype=np.float32)[:, None, None], shape).copy()
    grid = VolumeGrid.make(shape, np.diag([*SPACING, 1.0]))
    box = tuple(slice(0, size) for size in shape)
    return NativeVolume(image[None], np.ones((1, *shape), bool), np.ones(shape, bool), SPACING, box, (1.0,), grid)


def test_a_contrast_is_that_to_the_tissue_around(volume: NativeVolume) -> None:
    lesion = np.zeros(volume.brain.shape, bool)
    lesion[30:34, 10:14, 2] = True
    images = np.concatenate([volume.image, volume.image]) + np.array([0.1, -0.3]).reshape(2, 1, 1, 1) * lesion
    tissue = volume.brain & ~lesion
    tissue[:, :, 3:] = False
    places, points = np.argwhere(tissue) * SPACING, np.argwhere(lesion) * SPACING
    near = [np.linalg.norm(points - place, axis=1).min() <= 8.0 for place in places]
    differences = [np.median(image[lesion]) - np.median(image[tissue][near]) for image in images]
    assert abs(differences[1]) > abs(differences[0])
    assert contrast_of(images, lesion, tissue, SPACING) == pytest.approx(differences[1], abs=1e-6)
    assert contrast_of(images, lesion, np.zeros_like(lesion), SPACING) is None
    assert contrast_of(images, np.zeros_like(lesion), tissue, SPACING) is None
    assert [contrast_class(value) for value in (0.1, -0.2, 0.3, -0.7)] == [
        *("under 0.15", "0.15-0.3", "0.3-0.6", "over 0.6")
    ]


def test_sections_are_the_parts_of_a_lesion_in_a_slice(volume: NativeVolume) -> None:
    lesion, mask, before = (np.zeros(volume.brain.shape, bool) for _ in range(3))
    lesion[5:15, 5:10, 1] = True  # 1 cm2
    lesion[5:15, 5:10, 2] = True
    lesion[20:30, 20:25, 2] = True
    lesion[20:22, 5:6, 2] = True  # too small
    mask[5:15, 5, 1] = mask[20:30, 20, 2] = True
    before[20, 20:25, 2] = True
    images = volume.image + np.float32(0.4) * lesion
    look = look_of(volume, images, lesion, ~lesion, 2, mask, before)
    assert [(area, found) for area, _, found in look["sections"]] == [(1.0, True), (1.0, False), (1.0, False)]
    assert [contrast for _, contrast, _ in look["sections"]] == pytest.approx([0.4] * 3, abs=0.06)
    assert look["to_tissue"] == pytest.approx(0.35, abs=0.1)  # two parts in tissue that is not even
    assert [found for *_, found in look_of(volume, images, lesion, ~lesion, 2)["sections"]] == [None] * 3


def record(person: str, lesions: list[tuple[float, float, bool]]) -> dict[str, Any]:
    """Lesions of a volume, contrast and whether found, each with one section of the volume's number in cm2."""
    return {
        "person": ["d", person],
        "lesions": [
            {"volume_ml": ml, "to_tissue": contrast, "found": found, "sections": [[ml, contrast, found]]}
            for ml, contrast, found in lesions
        ],
    }


def test_painted_recall_is_weighed_by_the_contrasts_of_real_lesions() -> None:
    """Painted: half faint and half strong, of which the strong are found. Real: four of five faint."""
    faint, strong = (2.0, 0.1, False), (2.0, 0.7, True)
    painted = [record(str(number), [faint, strong]) for number in range(10)]
    real = [record(str(number), [(2.0, 0.1, number == 0)] * 4 + [strong]) for number in range(3)]
    rows = comparison_rows(painted, real, real)
    table = {(row["of"], row["size"], row["contrast"]): row for row in rows}
    for what, size in (("lesion", "1-3"), ("section", "1.5-5")):
        every, of_faint = table[what, size, "all"], table[what, size, "under 0.15"]
        assert (every["painted"], every["painted_recall"], every["painted_weighed"]) == (20, 0.5, 0.2)
        assert (of_faint["real"], of_faint["real_found"], of_faint["painted_recall"]) == (12, 4, 0.0)
        assert every["real_recall"] == pytest.approx(7 / 15, abs=1e-4)
        assert mean_difference(rows, what, "size") == (pytest.approx(abs(0.5 - 7 / 15), abs=1e-4), 1)
        assert mean_difference(rows, what, "weighed") == (pytest.approx(abs(0.2 - 7 / 15), abs=1e-4), 1)
        # Of the strong there are three real ones, too few to count.
        assert mean_difference(rows, what, "contrast") == (pytest.approx(1 / 3, abs=1e-4), 1)
    # Wilson of 4 of 12, and over people, of whom one has all that are found, anything from none to all of them.
    low, high = (table["lesion", "1-3", "under 0.15"][f"real_{end}"] for end in ("low", "high"))
    assert (low, high) == (pytest.approx(0.1381, abs=1e-3), pytest.approx(0.6094, abs=1e-3))
    assert (table["section", "1.5-5", "under 0.15"]["real_low"], table["section", "1.5-5", "all"]["painted_low"]) == (
        0,
        0.5,
    )
    said = " ".join(comparison_words(rows, "the lesions of 3 annotated cases"))
    assert "of lesions differ by 0.33 on average over 1 classes of size and contrast" in said
    assert "weighed by the contrasts of the lesions of 3 annotated cases" in said
    assert "1-3 ml 20%" in said


def test_contrasts_that_were_not_painted_give_no_weighed_recall() -> None:
    painted = [record(str(number), [(2.0, 0.7, True)]) for number in range(6)]
    few = [record("a", [(2.0, 0.1, False)] * 2 + [(2.0, 0.7, True)] * 4)]
    rows = comparison_rows(painted, few, few)
    assert [row["painted_weighed"] for row in rows] == [None] * len(rows)
    assert all(row["contrast"] == "all" or not row["painted"] or row["contrast"] == "over 0.6" for row in rows)
    assert counted([record("a", [(50.0, 0.1, True)])], "section")[0].size == "over 15"
    assert "weighed" not in " ".join(comparison_words(rows, ""))
