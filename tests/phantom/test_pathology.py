"""Lesions: volumes, where they lie, what they change, and that plain intensity does not find them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn.metrics import average_precision_score

from hybriduad.core.errors import ConfigError
from hybriduad.core.rng import numpy_rng
from hybriduad.phantom.anatomy import Anatomy, draw_anatomy
from hybriduad.phantom.lattice import Grid
from hybriduad.phantom.pathology import (
    PATHOLOGIES,
    Pathology,
    draw_lesion,
    stream_of,
    tumour,
    vascular,
    white_matter,
)
from hybriduad.phantom.pathology.lesion import cut_log_normal, swell
from hybriduad.phantom.pathology.vascular import STAGES, STROKE_ML
from hybriduad.phantom.subject import Phantom, _outline, make_subject

COARSE = (4.0, 4.0, 4.0)
DIRECTIONS = {
    "glioma": {"T1w": -1, "T2w": 1, "FLAIR": 1, "PDw": 1},
    "stroke": {"T1w": -1, "T2w": 1, "FLAIR": 1, "PDw": 1},
    "stroke-acute": {"T1w": -1, "T2w": 1, "FLAIR": 1, "PDw": 1},
    "stroke-chronic": {"T1w": -1, "T2w": 1, "PDw": 1},
    "ms": {"T1w": -1, "T2w": 1, "FLAIR": 1, "PDw": 1},
    "wmh": {"T1w": -1, "T2w": 1, "FLAIR": 1, "PDw": 1},
    "resection": {"T1w": -1, "T2w": 1, "FLAIR": -1, "PDw": 1},
    "atrophy": {"T1w": -1, "T2w": 1, "FLAIR": -1, "PDw": 1},
}
"""Darker (-1) or brighter (1) than without the lesion, on the mean over it; a haemorrhage depends on its age."""


@pytest.fixture(scope="module", params=PATHOLOGIES)
def sick(request: pytest.FixtureRequest) -> Phantom:
    return make_subject(2, 1, pathology=request.param, spacing_mm=(3.0, 3.0, 3.0))


def test_the_lesion_lies_in_the_brain_and_only_there_images_change(sick: Phantom) -> None:
    assert sick.lesion.any()
    assert not (sick.lesion & ~sick.brain).any()
    # Mass effect moves tissue near a glioma; further away nothing may differ, the noise included. Atrophy ends softly.
    radius_mm = (3000 * sick.lesion.sum() * sick.voxel_ml / (4 * np.pi)) ** (1 / 3)
    moves = sick.attributes["pathology"] in ("glioma", "haemorrhage", "atrophy")
    reach_mm = 2 * radius_mm + 12 if moves else 9
    far = ndimage.distance_transform_edt(~sick.lesion, sampling=3.0) > reach_mm
    assert (far & sick.brain).mean() > 0.1 * sick.brain.mean()
    for name, image in sick.images.items():
        healthy = sick.healthy_images[name]
        scale = healthy[sick.brain].mean()
        least = 0.02 if name == "PDw" else 0.05  # proton density hardly differs
        assert np.abs(image - healthy)[sick.lesion].mean() > least * scale, name
        assert np.abs(image - healthy)[far].max() < 0.03 * scale, name


def test_every_contrast_follows_the_relaxation_times(sick: Phantom) -> None:
    """Long T1 and T2 are darker on T1w and brighter on T2w; CSF in the place of tissue is dark on FLAIR."""
    change = {name: (image - sick.healthy_images[name])[sick.lesion].mean() for name, image in sick.images.items()}
    for name, sign in DIRECTIONS.get(sick.attributes["pathology"], {}).items():
        assert np.sign(change[name]) == sign, name


@pytest.mark.parametrize("kind", ["glioma", "stroke", "ms", "wmh"])
def test_damaged_tissue_has_a_longer_t2(kind: Pathology) -> None:
    phantom = make_subject(2, 1, pathology=kind, contrasts=("T1w",), spacing_mm=(3.0, 3.0, 3.0))
    tissue = phantom.lesion & (phantom.tissue[2] < 0.2)
    white = (phantom.tissue[1] > 0.9) & ~ndimage.binary_dilation(phantom.lesion, iterations=4)
    assert phantom.t2_ms[tissue].mean() > 1.1 * phantom.t2_ms[white].mean()


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
    for kind in ("glioma", "stroke", "ms", "wmh"):  # those that are bright on FLAIR
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


@pytest.mark.parametrize(
    ("kind", "home"),
    [("stroke", vascular), ("glioma", tumour), ("resection", tumour)],
)
def test_a_lesion_fills_the_volume_that_was_drawn(
    kind: Pathology, home: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "cut_log_normal", lambda *_: 20.0)
    head = draw_anatomy(0, 0, Grid.make(COARSE))
    lesion = draw_lesion(kind, head, numpy_rng(0, kind))
    assert lesion.inside.sum() * head.grid.point_ml == pytest.approx(20.0, rel=0.01)
    assert (lesion.damage >= 0).all()
    assert (lesion.damage <= 1).all()
    assert lesion.damage[lesion.inside].mean() > 5 * lesion.damage[~lesion.inside].mean()


@pytest.mark.parametrize("kind", PATHOLOGIES)
def test_tissue_stays_whole_with_any_lesion(kind: Pathology) -> None:
    head = draw_anatomy(0, 0, Grid.make(COARSE))
    for draw in range(4):
        lesion = draw_lesion(kind, head, numpy_rng(draw, kind))
        fractions = lesion.fractions()
        np.testing.assert_allclose(fractions.sum(axis=0), 1, atol=1e-5)
        assert fractions.min() > -1e-6
        assert lesion.inside.any()
        for values in (lesion.damage, lesion.solid, lesion.fluid):
            assert 0 <= values.min() <= values.max() <= 1
        assert np.isfinite(lesion.target).all()
        assert (lesion.target > 0).all()


def test_stroke_volumes_are_log_normal_and_cut() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([cut_log_normal(rng, *STROKE_ML) for _ in range(4000)])
    assert drawn.min() > 0.03
    assert drawn.max() < 300
    low, high = ((np.log(cut) - np.log(4.0)) / 2.3 for cut in (0.03, 300.0))
    assert stats.kstest(np.log(drawn), stats.truncnorm(low, high, np.log(4.0), 2.3).cdf).pvalue > 0.01


def test_a_stroke_of_a_stage_is_the_stroke_of_any_age_where_that_is_drawn_so() -> None:
    """The same infarct in the same place, fresh or old."""
    shares = {"acute": 0, "chronic": 0}
    for subject in range(12):
        head = draw_anatomy(4, subject, Grid.make((8.0, 8.0, 8.0)))
        drawn, acute, chronic = (
            draw_lesion(kind, head, numpy_rng(4, subject, stream_of(kind)))  # type: ignore[arg-type]
            for kind in ("stroke", "stroke-acute", "stroke-chronic")
        )
        assert (acute.stage, chronic.stage) == ("acute", "chronic")
        same = {"acute": acute, "chronic": chronic}[drawn.stage]
        for name in ("inside", "damage", "target"):
            np.testing.assert_array_equal(getattr(drawn, name), getattr(same, name))
        np.testing.assert_array_equal(acute.inside, chronic.inside)
        assert acute.target[0].max() == acute.target[0].min()  # no cavity
        shares[drawn.stage] += 1
    assert min(shares.values()) >= 2


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


def of_age(head: Anatomy, age: int) -> Anatomy:
    return replace(head, person=replace(head.person, age=age))


def test_hyperintensities_come_with_age_and_lie_along_the_ventricles() -> None:
    head = draw_anatomy(0, 0, Grid.make((3.0, 3.0, 3.0)))
    volumes = {}
    for age in (35, 80):
        lesions = [draw_lesion("wmh", of_age(head, age), numpy_rng(draw)) for draw in range(12)]
        volumes[age] = np.median([lesion.inside.sum() * head.grid.point_ml for lesion in lesions])
    assert volumes[80] > 3 * volumes[35]
    lesion = max(lesions, key=lambda lesion: lesion.inside.sum())
    volume = np.zeros(head.brain.shape, dtype=bool)
    volume[head.brain] = lesion.inside
    labels, count = ndimage.label(volume, np.ones((3, 3, 3)))
    sizes = np.sort(ndimage.sum_labels(volume, labels, np.arange(1, count + 1)) * head.grid.point_ml)
    assert sizes[-1] > 5  # what lies along the ventricles has run together
    assert count >= 5
    assert np.median(sizes) < 0.5  # and the foci are small
    white = head.fractions[1] > 0.6
    assert np.median(head.ventricle_mm[lesion.inside]) < 0.5 * np.median(head.ventricle_mm[white])
    assert head.fractions[0][lesion.inside].mean() < 0.25
    assert (head.template_mm[2][lesion.inside] > -26).all()


def test_a_hyperintensity_is_as_large_as_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(white_matter, "cut_log_normal", lambda *_: 12.0)
    head = draw_anatomy(0, 0, Grid.make(COARSE))
    drawn = draw_lesion("wmh", head, numpy_rng(0)).inside.sum() * head.grid.point_ml
    assert 0.5 * 12 < drawn < 2 * 12  # a focus as large as the whole is what the last of them may add


@pytest.mark.parametrize(
    ("stage", "t1w", "t2w"), [("acute", 0, -1), ("early subacute", 1, -1), ("late subacute", 1, 1), ("chronic", -1, 1)]
)
def test_blood_changes_its_contrasts_with_its_age(
    stage: str, t1w: int, t2w: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against white matter (Bradley 1993): what lies in the clot, and a rim dark on T2w at last."""
    monkeypatch.setattr(vascular, "STAGES", {stage: STAGES[stage]})
    monkeypatch.setattr(vascular, "cut_log_normal", lambda *_: 60.0)
    phantom = make_subject(2, 1, pathology="haemorrhage", contrasts=("T1w", "T2w"), spacing_mm=(2.0, 2.0, 2.0))
    white = (phantom.tissue[1] > 0.9) & (ndimage.distance_transform_edt(~phantom.lesion) > 8)
    depth = ndimage.distance_transform_edt(phantom.lesion, sampling=2.0)
    level = {name: image / image[white].mean() for name, image in phantom.images.items()}
    # The deepest half is clot, whatever oedema there is around it.
    clot = depth > 0.5 * depth.max()
    shown = {name: float(np.median(image[clot])) for name, image in level.items()}
    if stage == "early subacute":  # its shell turns first: mixed on T1w
        assert np.percentile(level["T1w"][clot], 10) < 0.95
        shown["T1w"] = float(np.percentile(level["T1w"][phantom.lesion], 95))
    for name, sign in (("T1w", t1w), ("T2w", t2w)):
        assert sign == 0 or (shown[name] - 1) * sign > 0.1, name
    rim = phantom.lesion & (depth <= 2.0)
    if stage == "chronic":
        assert np.percentile(level["T2w"][rim], 25) < 0.7  # haemosiderin
    if stage in ("acute", "early subacute"):
        assert np.median(level["T2w"][rim]) > 1.1  # oedema


def test_a_cavity_holds_csf_within_a_thin_bright_rim() -> None:
    phantom = make_subject(2, 4, pathology="resection", contrasts=("T1w", "FLAIR"), spacing_mm=(2.0, 2.0, 2.0))
    csf = phantom.lesion & (phantom.tissue[2] > 0.95)
    rim = phantom.lesion & (phantom.tissue[2] < 0.1)
    assert csf.sum() > 0.3 * phantom.lesion.sum()
    assert 0 < rim.sum() < 0.6 * phantom.lesion.sum()
    assert phantom.images["FLAIR"][csf].mean() < 0.3 * phantom.healthy_images["FLAIR"][csf].mean()
    assert phantom.images["T1w"][csf].mean() < 0.7 * phantom.healthy_images["T1w"][csf].mean()
    assert phantom.images["FLAIR"][rim].mean() > 1.15 * phantom.healthy_images["FLAIR"][rim].mean()


def test_atrophy_turns_tissue_into_csf_near_csf_and_leaves_relaxation_alone() -> None:
    phantom = make_subject(2, 1, pathology="atrophy", contrasts=("T1w",), spacing_mm=(3.0, 3.0, 3.0))
    twin = make_subject(2, 1, contrasts=("T1w",), spacing_mm=(3.0, 3.0, 3.0))
    rise = phantom.tissue[2] - twin.tissue[2]
    assert rise[phantom.lesion].mean() > 0.15
    assert rise[phantom.lesion].sum() > 0.6 * rise.sum()
    assert rise.min() > -0.05
    for name in ("t1_ms", "t2_ms", "pd"):
        np.testing.assert_array_equal(getattr(phantom.relaxation, name), getattr(twin.relaxation, name))
    # Sulci widen from where they are: what turned to CSF touches CSF.
    turned = phantom.lesion & (rise > 0.5)
    assert (ndimage.distance_transform_edt((twin.tissue[2] < 0.3) & twin.brain, sampling=3.0)[turned] < 10).all()


def test_mass_effect_pushes_tissue_away_and_leaves_the_brain_mask() -> None:
    points = np.zeros((3, 5), dtype=np.float32)
    points[0] = [1, 5, 10, 30, 90]
    pushed = swell(points, np.full(5, 50.0), np.zeros(3), radius_mm=20.0, strength=0.4)
    assert (pushed[0] < points[0]).sum() >= 4  # the tissue found at a point comes from nearer the centre
    assert (np.diff(pushed[0]) > 0).all()  # and nothing folds
    np.testing.assert_array_equal(swell(points, np.zeros(5), np.zeros(3), 20.0, 0.4), points)


def test_an_unknown_pathology_is_refused() -> None:
    head = draw_anatomy(0, 0, Grid.make((8.0, 8.0, 8.0)))
    with pytest.raises(ConfigError, match="unknown pathology: got 'flu'"):
        draw_lesion("flu", head, numpy_rng(0))  # type: ignore[arg-type]
