"""Heads from label maps: places, tissues, cohorts, and what is no label map."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from hybriduad.cohort.leakage import check_leakage, identities
from hybriduad.cohort.manifest import read_cohort, read_manifest
from hybriduad.core.errors import ConfigError, DataError, LeakageError
from hybriduad.phantom import labelmaps
from hybriduad.phantom.anatomy import template
from hybriduad.phantom.cohort import write_cohort
from hybriduad.phantom.labelmaps import LANDMARKS_MM, labelmap_of, labelmaps_in, read_head
from hybriduad.phantom.subject import make_subject

STEP_MM = 2
TINY = {"contrasts": ("FLAIR",), "spacing_mm": (6.0, 6.0, 8.0), "seed": 4}


def pitch(degrees: float) -> np.ndarray:
    turn = np.eye(4)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    return turn


def write_labels(path: Path, labels: np.ndarray, *, degrees: float = 0.0, dtype: type = np.int32) -> Path:
    """Labels on the template's grid of 2 mm, of a head that nods by ``degrees``, in the orientation LIA."""
    affine = np.diag([STEP_MM, STEP_MM, STEP_MM, 1.0])
    affine[:3, 3] = template().origin_mm
    image = nib.Nifti1Image(labels.astype(dtype), pitch(degrees) @ affine)
    there = nib.orientations.axcodes2ornt("LIA")
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), there)
    image.as_reoriented(turn).to_filename(path)
    return path


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """The template as a label map: hemispheres, ventricles, the deep structures as balls, and a skull around it."""
    head = template()
    grey, white, csf = head.tissue[:, ::STEP_MM, ::STEP_MM, ::STEP_MM].numpy()
    inside = grey + white + csf > 0.5
    shape = inside.shape
    x, y, z = np.meshgrid(*(STEP_MM * np.arange(n) for n in shape), indexing="ij") + head.origin_mm[:, None, None, None]
    right = x > 0
    values = np.where(inside, 24, 0)
    values = np.where(inside & (grey > csf), np.where(right, 42, 3), values)
    values = np.where(inside & (white > np.maximum(grey, csf)), np.where(right, 41, 2), values)
    values = np.where(inside & (head.place[0].numpy() < 0), np.where(right, 43, 4), values)
    for label, (a, b, c) in LANDMARKS_MM.items():
        values[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < 5**2] = label
    values[ndimage.binary_dilation(inside, iterations=4) & ~inside] = 515
    return values


@pytest.fixture(scope="module")
def folder(labels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder / "person-1_dseg.nii.gz", labels)
    write_labels(folder / "person-2_dseg.nii.gz", labels[::-1])
    (folder / "labels.txt").write_text("3 left cerebral cortex")
    return folder


@pytest.mark.parametrize("degrees", [0.0, 15.0])
def test_a_head_lies_where_the_template_does_however_its_scan_was_tilted(
    labels: np.ndarray, degrees: float, tmp_path: Path
) -> None:
    home, head = template(), read_head(write_labels(tmp_path / "a_dseg.nii.gz", labels, degrees=degrees))
    white = np.corrcoef(head.tissue[1].numpy().ravel(), home.tissue[1].numpy().ravel())[0, 1]
    assert white > 0.85
    both = (head.tissue.sum(dim=0) > 0.5).numpy()
    both &= (home.tissue.sum(dim=0) > 0.5).numpy()
    assert both.sum() > 0.9 * (home.tissue.sum(dim=0) > 0.5).sum()
    deep = home.place[1].numpy() > 10
    assert np.abs(head.place[0] - home.place[0]).numpy()[deep].mean() < 3  # mm to the ventricles


def test_tissues_fill_the_brain_and_the_skull_is_not_of_it(folder: Path, labels: np.ndarray) -> None:
    head = read_head(folder / "person-1_dseg.nii.gz")
    total = head.tissue.sum(dim=0).numpy()
    assert (np.isclose(total, 1, atol=1e-5) | (total == 0)).all()
    brain_ml = float((labels > 0).sum() - (labels == 515).sum()) * STEP_MM**3 / 1000
    assert brain_ml < total.sum() / 1000 < 1.15 * brain_ml  # with some CSF around it
    thalamus = head.sample_tissue(np.array([LANDMARKS_MM[10], LANDMARKS_MM[49]]).T)
    assert (thalamus[0] > 0.4).all()
    assert (thalamus[1] > 0.2).all()


@pytest.mark.parametrize("kind", ["glioma", "atrophy"])
def test_pathologies_of_a_labelled_person_are_those_of_any_other(folder: Path, kind: str) -> None:
    """Mass effect and shrinkage move the person's own tissue, not that of the template."""
    coarse = {"contrasts": ("T1w",), "spacing_mm": (4.0, 4.0, 4.0)}
    path = folder / "person-2_dseg.nii.gz"
    phantom = make_subject(2, 1, pathology=kind, labelmap=path, **coarse)  # type: ignore[arg-type]
    twin = make_subject(2, 1, labelmap=path, **coarse)  # type: ignore[arg-type]
    assert phantom.lesion.any()
    far = ndimage.distance_transform_edt(~phantom.lesion, sampling=4.0) > 50
    assert np.abs(phantom.tissue - twin.tissue)[:, far & phantom.brain].max() < 0.05
    np.testing.assert_array_equal(twin.images["T1w"], phantom.healthy_images["T1w"])
    other = make_subject(2, 1, **coarse)  # type: ignore[arg-type]
    assert not np.array_equal(other.tissue, twin.tissue)


def test_a_cohort_takes_its_people_in_turn_and_says_whose_anatomy_it_is(folder: Path, tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "a", subjects=2, labelmaps=folder, pathology="ms", **TINY)
    cases = read_manifest(manifest)
    assert cases == read_cohort(manifest.parent)
    assert {case.attributes["labelmap"] for case in cases} == {"person-1_dseg", "person-2_dseg"}
    # Another anatomy under the same seed and number is another person.
    others = read_manifest(write_cohort(tmp_path / "b", subjects=2, **TINY))
    check_leakage(others, identities(cases, "fit"))
    # The same anatomy under another number is not.
    more = read_manifest(write_cohort(tmp_path / "c", subjects=4, labelmaps=folder, **TINY))
    with pytest.raises(LeakageError, match="2 of 2 cases were already used"):
        check_leakage(more[2:], identities(more[:2], "fit"))
    with pytest.raises(ConfigError, match=r"phantoms of another config.*labelmaps"):
        write_cohort(tmp_path / "a", subjects=2, pathology="ms", **TINY)


def test_all_label_maps_are_used_before_any_is_used_again(tmp_path: Path) -> None:
    paths = [tmp_path / str(n) for n in range(5)]
    drawn = [labelmap_of(3, subject, paths) for subject in range(20)]
    for start in range(0, 20, 5):
        assert sorted(drawn[start : start + 5]) == paths
    assert len({tuple(drawn[start : start + 5]) for start in range(0, 20, 5)}) > 1  # in no fixed order


def test_what_is_no_label_map_is_a_sentence(labels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no label map in .*expected files \*dseg"):
        labelmaps_in(tmp_path)
    smooth = write_labels(tmp_path / "smooth_dseg.nii.gz", labels * 0.37, dtype=np.float32)
    with pytest.raises(DataError, match=r"not a label map in .*smooth_dseg"):
        read_head(smooth)
    for name, values in (("mask", labels > 0), ("skull", labels * (labels == 515)), ("half", labels * (labels != 49))):
        path = write_labels(tmp_path / f"{name}_dseg.nii.gz", values)
        with pytest.raises(DataError, match=rf"not the label map of a whole brain in .*{name}_dseg"):
            read_head(path)
    (tmp_path / "damaged_dseg.nii.gz").write_bytes(smooth.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged"):
        write_cohort(tmp_path / "out", subjects=1, labelmaps=tmp_path, **TINY)
    assert not (tmp_path / "out").exists()


def test_every_label_has_a_tissue_and_shares_sum_to_one() -> None:
    shares = labelmaps._shares(3000)
    known = shares.sum(axis=0) > 0
    np.testing.assert_allclose(shares.sum(axis=0)[known], 1)
    assert known[[2, 3, 4, 10, 24, 43, 1010, 2010]].all()
    assert not known[[0, 502, 515, 516]].any()
