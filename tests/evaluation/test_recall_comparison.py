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


def test_a_contrast_is_that_of_the_most_conspicuous_tenth(volume: NativeVolume) -> None:
    lesion = np.zeros(volume.brain.shape, bool)
    lesion[30:34, 10:14, 2] = True
    images = np.concatenate([volume.image, volume.image]) + np.array([0.1, -0.3]).reshape(2, 1, 1, 1) * lesion
    tissue = volume.brain & ~lesion
    tissue[:, :, 3:] = False
    places, points = np.argwhere(tissue) * SPACING, np.argwhere(lesion) * SPACING
    near = [np.linalg.norm(points - place, axis=1).min() <= 8.0 for place in places]
    around = [np.median(image[tissue][near]) for image in images]
    bright, dark = np.percentile(images[0][lesion], 90) - around[0], np.percentile(images[1][lesion], 10) - around[1]
    assert dark < -bright < 0
    assert contrast_of(images, lesion, tissue, SPACING) == pytest.approx(dark, abs=1e-6)
    assert contrast_of(images[:1], lesion, tissue, SPACING) == pytest.approx(bright, abs=1e-6)
    assert contrast_of(images, lesion, np.zeros_like(lesion), SPACING) is None
    assert contrast_of(images, np.zeros_like(lesion), tissue, SPACING) is None
    classes = [contrast_class(value) for value in (0.1, -0.4, 0.5, -0.9)]
    assert classes == ["under 0.3", "0.3-0.5", "0.5-0.8", "over 0.8"]


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
    assert [contrast for _, contrast, _ in look["sections"]] == pytest.approx([0.46] * 3, abs=0.03)
    assert 0.4 < look["to_tissue"] < 0.8
    middle = (np.argwhere(lesion).mean(axis=0) + 0.5) / lesion.shape
    assert look["place"] == pytest.approx(middle, abs=1e-3)
    assert [found for *_, found in look_of(volume, images, lesion, ~lesion, 2)["sections"]] == [None] * 3


def record(person: str, lesions: list[tuple[float, float, bool]], up: float = 0.5) -> dict[str, Any]:
    """Lesions of a volume, contrast and whether found, each with one section of a tenth of its volume in cm2."""
    return {
        "person": ["d", person],
        "lesions": [
            {
                "volume_ml": ml,
                "to_tissue": contrast,
                "found": found,
                "place": [0.5, 0.5, up],
                "sections": [[ml / 10, contrast, found]],
            }
            for ml, contrast, found in lesions
        ],
    }


def test_painted_recall_is_weighed_by_the_contrasts_of_real_lesions() -> None:
    """Painted: half faint and half strong, of which the strong are found. Real: four of five faint."""
    faint, strong = (20.0, 0.1, False), (20.0, 0.7, True)
    painted = [record(str(number), [faint, strong]) for number in range(10)]
    real = [record(str(number), [(20.0, 0.1, number == 0)] * 4 + [strong]) for number in range(3)]
    rows = comparison_rows(painted, real, real)
    table = {(row["of"], row["size"], row["contrast"]): row for row in rows}
    for what, size in (("lesion", "10-30"), ("section", "1.5-5")):
        every, of_faint = table[what, size, "all"], table[what, size, "under 0.3"]
        assert (every["painted"], every["painted_recall"], every["painted_weighed"]) == (20, 0.5, 0.2)
        assert (of_faint["real"], of_faint["real_found"], of_faint["painted_recall"]) == (12, 4, 0.0)
        assert every["real_recall"] == pytest.approx(7 / 15, abs=1e-4)
        assert mean_difference(rows, what, "size") == (pytest.approx(abs(0.5 - 7 / 15), abs=1e-4), 1)
        assert mean_difference(rows, what, "weighed") == (pytest.approx(abs(0.2 - 7 / 15), abs=1e-4), 1)
        # Of the strong there are three real ones, too few to count.
        assert mean_difference(rows, what, "contrast") == (pytest.approx(1 / 3, abs=1e-4), 1)
    # Wilson of 4 of 12; over people, of whom one has all that are found, from none of them on.
    low, high = (table["lesion", "10-30", "under 0.3"][f"real_{end}"] for end in ("low", "high"))
    assert (low, high) == (pytest.approx(0.1381, abs=1e-3), pytest.approx(0.6094, abs=1e-3))
    assert table["section", "1.5-5", "under 0.3"]["real_low"] == 0
    assert table["section", "1.5-5", "all"]["painted_low"] == 0.5
    said = " ".join(comparison_words(rows, "the lesions of 3 annotated cases"))
    assert "recall of lesions: 0.33 over 1 class of size and contrast; 0.03 over 1 class of size; 0.27 over" in said
    assert "1 class of size, weighed by the lesions of 3 annotated cases." in said
    assert "10-30 ml 20%" in said


def test_painted_recall_is_weighed_by_the_heights_of_real_lesions() -> None:
    """Half of the painted ones lie low and are missed, half high and found; of the real ones three of four lie high."""
    painted = [record(str(number), [(2.0, 0.4, high)], 0.9 if high else 0.1) for number in range(20) for high in (0, 1)]
    real = [record("a", [(2.0, 0.4, True)] * 6, 0.9), record("b", [(2.0, 0.4, True)] * 2, 0.1)]
    (row,) = [row for row in comparison_rows(painted, real, real) if row["contrast"] == "all"]
    assert (row["painted_recall"], row["painted_weighed"]) == (0.5, 0.75)
    assert counted(real, "section") == []  # of a small lesion


def test_contrasts_that_were_not_painted_give_no_weighed_recall() -> None:
    painted = [record(str(number), [(20.0, 0.9, True)]) for number in range(6)]
    few = [record("a", [(20.0, 0.1, False)] * 2 + [(20.0, 0.9, True)] * 4)]
    rows = comparison_rows(painted, few, few)
    assert [row["painted_weighed"] for row in rows] == [None] * len(rows)
    assert all(row["contrast"] == "all" or not row["painted"] or row["contrast"] == "over 0.8" for row in rows)
    assert counted([record("a", [(500.0, 0.1, True)])], "section")[0].size == "over 15"
    said = "Mean absolute difference of painted and real recall of lesions: 0.33 over 1 class of size."
    assert comparison_words(rows, "")[0] == said
