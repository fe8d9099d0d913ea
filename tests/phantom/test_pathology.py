"""Lesions: volumes, where they lie, what they change, and that plain intensity does not find them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn.metrics import average_precision_score

from hybriduad.core.errors import ConfigError
from hybriduad.core.rng import numpy_rng
from hybriduad.phantom import pathology
from hybriduad.phantom.anatomy import draw_anatomy
from hybriduad.phantom.lattice import Grid
from hybriduad.phantom.pathology import PATHOLOGIES, cut_log_normal, draw_lesion
from hybriduad.phantom.subject import Phantom, _outline, make_subject

COARSE = (4.0, 4.0, 4.0)


@pytest.fixture(scope="module", params=PATHOLOGIES)
def sick(request: pytest.FixtureRequest) -> Phantom:
    return make_subject(2, 1, pathology=request.param, spacing_mm=(3.0, 3.0, 3.0))


def test_the_lesion_lies_in_the_brain_and_only_there_images_change(sick: Phantom) -> None:
    assert sick.lesion.any()
    assert not (sick.lesion & ~sick.brain).any()
    # Mass effect moves tissue near a glioma; further away nothing may differ, the noise included.
    radius_mm = (3000 * sick.lesion.sum() * sick.voxel_ml / (4 * np.pi)) ** (1 / 3)
    reach_mm = 2 * radius_mm + 12 if sick.attributes["pathology"] == "glioma" else 9
    far = ndimage.distance_transform_edt(~sick.lesion, sampling=3.0) > reach_mm
    assert (far & sick.brain).mean() > 0.1 * sick.brain.mean()
    for name, image in sick.images.items():
        healthy = sick.healthy_images[name]
        scale = healthy[sick.brain].mean()
        assert np.abs(image - healthy)[sick.lesion].mean() > 0.05 * scale, name
        assert np.abs(image - healthy)[far].max() < 0.03 * scale, name


def test_every_contrast_follows_the_relaxation_times(sick: Phantom) -> None:
    """Long T1 and T2: darker on T1w, brighter on T2w."""
    tissue = sick.lesion & (sick.tissue[2] < 0.2)
    change = {name: (image - sick.healthy_images[name])[tissue].mean() for name, image in sick.images.items()}
    assert change["T1w"] < 0 < change["T2w"]
    white = (sick.tissue[1] > 0.9) & ~ndimage.binary_dilation(sick.lesion, iterations=4)
    assert sick.t2_ms[tissue].mean() > 1.1 * sick.t2_ms[white].mean()


def test_no_focus_is_too_small_to_be_outlined() -> None:
    covered = np.zeros((9, 9, 9), dtype=np.float32)
    covered[1, 1, 1], covered[5, 5, 5], covered[5, 5, 6], covered[7, 7, 7] = 0.9, 0.3, 0.1, 0.4
    brain = np.ones(covered.shape, dtype=bool)
    brain[7, 7, 7] = False
    expected = {(1, 1, 1), (5, 5, 5)}
    assert {tuple(map(int, voxel)) for voxel in np.argwhere(_outline(covered, brain))} == expected
    assert not _outline(np.zeros_like(covered), brain).any()


def test_the_healthy_twin_is_the_brain_without_its_lesion(sick: Phantom) -> None:
    twin = make_subject(2, 1, spacing_mm=(3.0, 3.0, 3.0))
    assert not twin.lesion.any()
    for name, image in twin.images.items():
        np.testing.assert_array_equal(image, sick.healthy_images[name])
        np.testing.assert_array_equal(image, twin.healthy_images[name])


def test_plain_intensity_does_not_solve_it() -> None:
    """AUPRC of FLAIR over its 99th percentile, median-filtered, pooled over the brains of each pathology and of all."""
    scores, truths = [], []
    for kind in PATHOLOGIES:
        of_kind = []
        for subject in range(6):
            phantom = make_subject(11, subject, pathology=kind, contrasts=("FLAIR",), spacing_mm=(4.0, 4.0, 5.0))
            image = phantom.images["FLAIR"] / np.percentile(phantom.images["FLAIR"][phantom.brain], 99)
            of_kind.append((ndimage.median_filter(image, (3, 3, 1))[phantom.brain], phantom.lesion[phantom.brain]))
        score, truth = (np.concatenate(part) for part in zip(*of_kind, strict=True))
        assert truth.mean() < average_precision_score(truth, score) < 0.5, kind
        scores.append(score)
        truths.append(truth)
    assert average_precision_score(np.concatenate(truths), np.concatenate(scores)) < 0.5


@pytest.mark.parametrize("kind", ["stroke", "glioma"])
def test_a_lesion_fills_the_volume_that_was_drawn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pathology, "cut_log_normal", lambda *_: 20.0)
    head = draw_anatomy(0, 0, Grid.make(COARSE))
    lesion = draw_lesion(kind, head, numpy_rng(0, kind))
    assert lesion.inside.sum() * head.grid.point_ml == pytest.approx(20.0, rel=0.01)
    assert (lesion.damage >= 0).all()
    assert (lesion.damage <= 1).all()
    assert lesion.damage[lesion.inside].mean() > 5 * lesion.damage[~lesion.inside].mean()


def test_stroke_volumes_are_log_normal_and_cut() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([cut_log_normal(rng, *pathology.STROKE_ML) for _ in range(4000)])
    assert drawn.min() > 0.03
    assert drawn.max() < 300
    low, high = ((np.log(cut) - np.log(4.0)) / 2.3 for cut in (0.03, 300.0))
    assert stats.kstest(np.log(drawn), stats.truncnorm(low, high, np.log(4.0), 2.3).cdf).pvalue > 0.01


def test_a_stroke_keeps_to_one_hemisphere() -> None:
    head = draw_anatomy(0, 0, Grid.make(COARSE))
    for draw in range(5):
        x = head.template_mm[0][draw_lesion("stroke", head, numpy_rng(draw)).inside]
        assert (x >= 0).all() or (x <= 0).all()


def test_multiple_sclerosis_has_many_small_foci_near_the_ventricles() -> None:
    head = draw_anatomy(0, 0, Grid.make((2.0, 2.0, 2.0)))
    lesion = draw_lesion("ms", head, numpy_rng(1))
    volume = np.zeros(head.brain.shape, dtype=bool)
    volume[head.brain] = lesion.inside
    labels, count = ndimage.label(volume, np.ones((3, 3, 3)))
    sizes = ndimage.sum_labels(volume, labels, np.arange(1, count + 1)) * head.grid.point_ml
    assert count >= 3
    assert np.median(sizes) < 1.0
    white = head.fractions[1] > 0.6
    assert np.median(head.ventricle_mm[lesion.inside]) < np.median(head.ventricle_mm[white])


def test_mass_effect_pushes_tissue_away_and_leaves_the_brain_mask() -> None:
    points = np.zeros((3, 5), dtype=np.float32)
    points[0] = [1, 5, 10, 30, 90]
    pushed = pathology._swell(points, np.full(5, 50.0), np.zeros(3), radius_mm=20.0, strength=0.4)
    assert (pushed[0] < points[0]).sum() >= 4  # the tissue found at a point comes from nearer the centre
    assert (np.diff(pushed[0]) > 0).all()  # and nothing folds
    np.testing.assert_array_equal(pathology._swell(points, np.zeros(5), np.zeros(3), 20.0, 0.4), points)


def test_an_unknown_pathology_is_refused() -> None:
    head = draw_anatomy(0, 0, Grid.make((8.0, 8.0, 8.0)))
    with pytest.raises(ConfigError, match="unknown pathology: got 'flu'"):
        draw_lesion("flu", head, numpy_rng(0))  # type: ignore[arg-type]
