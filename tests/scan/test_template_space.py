"""Template space: known maps recovered, the way back to an oblique grid, and cases that do not fit the template."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from reported import words_of
from scipy import ndimage
from scipy.spatial.transform import Rotation
from tiny import RECONSTRUCTOR, write_nifti
from typer.testing import CliRunner

from hybriduad.cli.app import app
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.cohort.truth import read_truth
from hybriduad.config.runs import TEMPLATE_BRAIN_MM, Anatomy
from hybriduad.config.strict import checked
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.core.types import Case, Prediction
from hybriduad.detector import bundle as bundles
from hybriduad.phantom.subject import make_subject
from hybriduad.prediction.case import _pseudo_healthy
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.prediction.plan import _slices
from hybriduad.report.build import write_report
from hybriduad.scan import bias_field, cache, registration
from hybriduad.scan.cache import PreparedCache, _cache_key
from hybriduad.scan.grid import restore
from hybriduad.scan.places import place_at
from hybriduad.scan.preparation import prepare
from hybriduad.scan.quality import register_measure
from hybriduad.scan.registration import Field, displacement_mm, register, to_template
from hybriduad.scan.resampling import through_affine
from hybriduad.scan.template import template
from hybriduad.scan.template_space import APART_MM, MOVED_MM, _lesion, aligned, along
from hybriduad.scan.volumes import Image, read_grid, read_volume
from hybriduad.training.fitting import fit_reconstructor

MNI = "MNI152NLin2009aSym"
SPACE = {"space": MNI, "size": 32, "spacing_mm": 6.0}


@pytest.fixture(autouse=True, scope="module")
def coarse():
    """Coarser cubes than those of real work: a registration takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "WORK_MM", 5.0)
        patch.setattr(bias_field, "WORK_MM", 8.0)
        yield


def rigid_map(degrees, shift_mm, scale=1.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * scale
    matrix[:3, 3] = shift_mm
    return matrix


def millimetres(mask, affine):
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def oblique(tmp_path_factory):
    """A head that lies askew in the scanner, on an anisotropic grid stored as LPS: FLAIR shaded from left to right, T1w
    whose header is 4 mm and 4 degrees off, and a ball of 5 mm as the lesion."""
    folder = tmp_path_factory.mktemp("oblique")
    phantom = make_subject(7, 3, contrasts=("FLAIR", "T1w"), spacing_mm=(2.0, 2.5, 4.0))
    askew = rigid_map((9, -6, 8), (12, -7, 15))
    shape = phantom.brain.shape
    shade = np.linspace(0.8, 1.25, shape[0])[:, None, None]
    middle = millimetres(phantom.brain, phantom.affine).mean(axis=0)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ phantom.affine[:3, :3].T
    lesion = np.linalg.norm(places + phantom.affine[:3, 3] - np.add(middle, (22, 14, 12)), axis=-1) <= 5.0
    flair = phantom.images["FLAIR"] * np.where(lesion, 1.6, 1.0) * shade
    off = rigid_map((0, 4, 0), (0, 4, 0))
    files = {
        "FLAIR": (flair.astype(np.float32), askew @ phantom.affine),
        "T1w": (phantom.images["T1w"], off @ askew @ phantom.affine),
        "brain": (phantom.brain.astype(np.uint8), askew @ phantom.affine),
        "lesion": (lesion.astype(np.uint8), askew @ phantom.affine),
    }
    paths = {name: folder / f"{name}.nii.gz" for name in files}
    for name, (data, affine) in files.items():
        change = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(tuple("LPS"))
        )
        nib.save(nib.Nifti1Image(data, affine).as_reoriented(change), paths[name])
    images = {name: paths[name] for name in ("FLAIR", "T1w")}
    return Case("set", "03", images, brain=paths["brain"], lesion=paths["lesion"], health="lesion")


@pytest.fixture(scope="module")
def placed(oblique):
    """That case on cubes of 2 mm, as users have it."""
    return prepare(oblique, Anatomy(contrasts=("FLAIR", "T1w"), space=MNI))


def test_a_known_affine_map_of_the_template_is_recovered_to_the_same_bits_on_any_number_of_threads():
    average = template()
    image, brain = average.image[::3, ::3, ::3], average.brain[::3, ::3, ::3]
    affine = average.affine @ np.diag([3.0, 3.0, 3.0, 1.0])
    known = rigid_map((12, -8, 10), (15, -12, 18)) @ np.diag([0.93, 1.05, 0.9, 1.0])
    scan = Field(image, known @ affine, brain)
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        found = []
        for number in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(number)
            found.append((to_template(scan, average), bias_field.bias_field(scan)))
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    places = millimetres(brain, affine)[::37]
    apart = displacement_mm(found[0][0] @ known, np.eye(4), places)
    assert apart.mean() < 1.0
    assert found[0][0].tobytes() == found[1][0].tobytes()
    assert found[0][1].tobytes() == found[1][1].tobytes()


def test_thick_slices_of_a_head_register_with_a_brain_mask_that_is_too_wide():
    average = template()
    image = ndimage.gaussian_filter(average.image, (0, 0, 2.5))
    z = np.arange(image.shape[2])
    rim = ndimage.binary_dilation(average.brain, iterations=3) & ~average.brain
    below = ndimage.binary_dilation(average.brain, np.ones((1, 1, 3)), iterations=14) & (z < z.mean())
    outside = np.where(ndimage.binary_dilation(below | rim, iterations=5), 0.35, 0.0)
    head = np.where(average.brain, image, outside).astype(np.float32)[::2, ::2, 25:175:6]
    mask = (average.brain | rim | below)[::2, ::2, 25:175:6]
    shift = np.eye(4)
    shift[2, 3] = 25
    affine = average.affine @ shift @ np.diag([2.0, 2.0, 6.0, 1.0])
    known = rigid_map((6, -8, 10), (9, -12, 8)) @ np.diag([0.95, 0.93, 0.85, 1.0])
    places = millimetres(average.brain, average.affine)[::997]
    found = register(Field(head, known @ affine, mask), average)
    assert displacement_mm(found.matrix @ known, np.eye(4), places).mean() < 1.5
    assert found.apart_mm < APART_MM


def test_a_contrast_with_another_header_is_brought_onto_the_reference_and_one_in_place_is_left(oblique):
    reference, other = (read_volume(oblique.images[name]) for name in ("FLAIR", "T1w"))
    change, moved_mm = aligned(other, reference)
    corrected = Image(other.data, along(other.grid, change))
    corners = np.array([[20, 20, 8], [60, 20, 8], [20, 60, 30], [60, 60, 30]])
    points = corners @ reference.affine[:3, :3].T + reference.affine[:3, 3]
    apart = displacement_mm(corrected.affine @ np.linalg.inv(reference.affine), np.eye(4), points)
    before = displacement_mm(other.affine @ np.linalg.inv(reference.affine), np.eye(4), points)
    assert before.mean() > 3.5
    assert apart.mean() < 1.5
    assert corrected.data is other.data
    assert 3.5 < moved_mm < 12
    unchanged, unmoved_mm = aligned(reference, reference)
    assert unchanged is None
    assert unmoved_mm < MOVED_MM


def test_a_mask_that_was_drawn_on_a_contrast_moves_with_it(oblique, placed, tmp_path):
    """The same brain and lesion, stated where the T1w says that they are, and stored in another order of axes."""
    paths = {}
    for kind in ("brain", "lesion"):
        drawn = nib.load(getattr(oblique, kind))
        moved = nib.Nifti1Image(np.asarray(drawn.dataobj), nib.load(oblique.images["T1w"]).affine)
        paths[kind] = tmp_path / f"{kind}.nii.gz"
        nib.save(nib.as_closest_canonical(moved), paths[kind])
    case = replace(oblique, **paths)
    found = prepare(case, Anatomy(contrasts=("FLAIR", "T1w"), space=MNI))
    truth = nib.load(oblique.brain).get_fdata() > 0
    assert dice(found.scan_brain, truth) > 0.97
    assert dice(found.lesion, placed.lesion) > 0.7
    assert 3.5 < found.notes["moved"]["T1w"]["mm"] < 12
    drawn = nib.load(oblique.lesion).get_fdata() > 0
    grid = read_grid(oblique.images["FLAIR"])
    stored = json.loads(json.dumps(found.notes))
    evaluated = read_truth(case, truth, grid, stored)
    assert dice(evaluated.lesion, evaluated.crop(drawn)) > 0.7
    unmoved = read_truth(case, truth, grid, {})
    assert dice(unmoved.lesion, unmoved.crop(drawn)) < 0.3


def test_a_5_mm_lesion_survives_the_round_trip_to_an_oblique_grid(placed, oblique):
    mask = nib.load(oblique.lesion).get_fdata() > 0
    assert placed.image.shape[:3] == (2, 96, 96)
    assert placed.spacing_mm == (2.0, 2.0, 2.0)
    assert placed.grid.volume == read_grid(oblique.images["FLAIR"])
    assert placed.notes["template"]["overlap"] > 0.9
    assert placed.notes["template"]["apart_mm"] < APART_MM
    assert placed.notes["resampled"] == ["T1w"]
    back = restore(placed.lesion.astype(np.float32), placed.grid, order=1) >= 0.5
    assert back.shape == mask.shape
    assert dice(back, mask) >= 0.8
    assert np.abs(np.argwhere(back).mean(axis=0) - np.argwhere(mask).mean(axis=0)).max() <= 0.5
    nearest = restore(placed.lesion, placed.grid, order=0)
    assert nearest.dtype == bool
    assert dice(nearest, mask) >= 0.75
    brain = nib.load(oblique.brain).get_fdata() > 0
    assert dice(restore(placed.brain.astype(np.float32), placed.grid, order=1) >= 0.5, brain) > 0.97
    with pytest.raises(DataError, match="another grid"):
        restore(placed.lesion[:-1], placed.grid, order=0)


def test_the_brain_lies_on_the_template_s_and_is_all_that_is_shown(placed):
    average = template()
    index = np.linalg.inv(average.affine) @ np.array(placed.grid.affine)
    theirs = through_affine(average.brain, index, placed.grid.shape, linear=True) >= 0.5
    assert dice(placed.brain, theirs) == pytest.approx(placed.notes["template"]["overlap"], abs=0.01)
    assert (placed.image[:, ~placed.brain] == -1).all()
    # The shading is gone, and the median of the brain lies at 2 / 2.5 - 1.
    assert np.median(placed.image[0][placed.brain]) == pytest.approx(-0.2, abs=0.03)
    left, right = (np.median(placed.image[0][half][placed.brain[half]] + 1) for half in (np.s_[:38], np.s_[58:]))
    assert 0.93 < left / right < 1.07


def test_a_pseudo_healthy_scan_comes_back_with_the_scan_s_shading_and_without_a_dark_rim(placed, oblique):
    class Same:
        anatomy = Anatomy(contrasts=("FLAIR", "T1w"), space=MNI)

    scan = nib.load(oblique.images["FLAIR"]).get_fdata()
    brain = placed.scan_brain
    unchanged = Prediction(brain=placed.brain, reconstruction=placed.image)
    shown = _pseudo_healthy(unchanged, placed, oblique, Same(), brain)[0]
    np.testing.assert_array_equal(shown[~brain], scan[~brain].astype(np.float32))
    quarter = scan.shape[0] // 3
    for part in (np.s_[:quarter], np.s_[-quarter:]):
        ratio = shown[part][brain[part]].sum() / scan[part][brain[part]].sum()
        assert ratio == pytest.approx(1, abs=0.03)
    rim = brain & ~ndimage.binary_erosion(brain)
    assert shown[rim].mean() / scan[rim].mean() == pytest.approx(1, abs=0.1)


def test_a_dry_run_counts_the_slices_of_the_space(placed, oblique):
    grid = read_grid(oblique.images["FLAIR"])
    in_template = Anatomy(contrasts=("FLAIR",), space=MNI)
    assert _slices(grid, in_template) == placed.image.shape[-1]
    own = _slices(grid, Anatomy(contrasts=("FLAIR",)))
    assert own == min(grid.shape_ras)
    assert own != placed.image.shape[-1]


def test_what_does_not_lie_on_the_template_fails_in_a_sentence(tmp_path):
    scan = np.zeros((60, 30, 30), np.float32)
    x, y, z = np.meshgrid(*map(np.arange, scan.shape), indexing="ij")
    for middle in (9, 50):  # two balls far apart
        ball = (x - middle) ** 2 + (y - 15) ** 2 + (z - 15) ** 2 <= 64
        scan[ball] = 100 + x[ball]
    brain = write_nifti(tmp_path / "brain.nii.gz", (scan > 0).astype(np.uint8), np.diag([4.0, 4.0, 4.0, 1.0]))
    path = write_nifti(tmp_path / "FLAIR.nii.gz", scan, np.diag([4.0, 4.0, 4.0, 1.0]))
    case = Case("set", "01", {"FLAIR": path}, brain=brain)
    sentence = r"sub-01: got an overlap \(Dice\) of 0\.\d\d, expected 0\.8\d or more; check the orientation"
    with pytest.raises(DataError, match=sentence):
        prepare(case, Anatomy(contrasts=("FLAIR",), **SPACE))


def test_a_registration_that_depends_on_its_start_is_flagged_in_a_sentence():
    assert not register_measure({"apart_mm": APART_MM}).flagged
    unsure = register_measure({"apart_mm": 6.24})
    assert unsure.flagged
    assert "two starts of the registration to the template end 6.2 mm apart" in unsure.sentence


def test_tiny_lesions_keep_a_voxel_each(oblique, placed):
    assert placed.lesion.sum() > 20
    index = np.linalg.inv(placed.grid.from_scan)
    shape = placed.grid.volume.shape_ras
    lesion = np.zeros(shape, bool)
    inside = np.argwhere(nib.as_closest_canonical(nib.load(oblique.brain)).get_fdata() > 0)
    for place in inside[[len(inside) // 4, len(inside) // 2]]:
        lesion[tuple(place)] = True
    coarse = index @ np.diag([4.0, 4.0, 4.0, 1.0])
    assert _lesion(lesion, coarse, (24, 24, 21)).sum() == 2


def test_the_cache_keeps_the_keys_of_native_cases_and_knows_the_spacing(tmp_path, oblique, monkeypatch):
    path = tmp_path / "fixed"
    path.write_bytes(b"scan")
    fixed = Case("d", "1", {"FLAIR": path}, lesion=path)
    native = Anatomy(contrasts=("FLAIR",))
    with monkeypatch.context() as before:
        before.setattr(cache, "FORMAT", 11)
        assert _cache_key(fixed, native, "axial") == "e292203078c687772fbbe45c3baf65fa"  # of version 0.1.0
    spaces = [{"size": 96}, {"size": 96, "space": MNI}, {"size": 96, "space": MNI, "spacing_mm": 1.9}]
    keys = {_cache_key(fixed, Anatomy(contrasts=("FLAIR",), **space), "axial") for space in spaces}
    assert len(keys) == 3
    anatomy = Anatomy(contrasts=("FLAIR",), **SPACE)
    store = PreparedCache(tmp_path / "cache")
    first, again = store.get(oblique, anatomy), store.get(oblique, anatomy)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert first.grid == again.grid
    assert first.spacing_mm == (6.0, 6.0, 6.0)
    assert first.grid.shape == first.image.shape[1:] == first.bias.shape[1:]
    assert first.bias.dtype == np.float32


def test_the_config_states_a_spacing_in_template_space_alone():
    def anatomy(**block):
        return checked(Anatomy, {"contrasts": ["T1w"], **block}, "here")

    assert "spacing_mm" not in anatomy().model_dump(mode="json")
    assert anatomy(space=MNI).model_dump(mode="json")["spacing_mm"] == 2.0
    assert checked(Anatomy, anatomy(space=MNI).model_dump(mode="json"), "here") == anatomy(space=MNI)
    with pytest.raises(ConfigError, match="spacing_mm belongs to a template space"):
        anatomy(spacing_mm=2.0)
    with pytest.raises(ConfigError, match=r"64 x 2 mm do not: set spacing_mm to 2.84 or more, or size to 91"):
        anatomy(space=MNI, size=64)
    low, high = template().box_mm
    assert TEMPLATE_BRAIN_MM - 1.5 <= (high - low).max() <= TEMPLATE_BRAIN_MM


@pytest.fixture(scope="module")
def bundle(tiny_cohort, tmp_path_factory):
    """A reconstructor that was trained in template space."""
    tmp_path = tmp_path_factory.mktemp("trained")
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(RECONSTRUCTOR | {"anatomy": {"contrasts": ["FLAIR"]}}))
    train = [replace(case, images={"FLAIR": case.images["FLAIR"]}) for case in read_cohort(tiny_cohort)[2:]]
    write_manifest(train, tmp_path / "cohort.csv")
    overrides = [f"anatomy.{key}={value}" for key, value in SPACE.items()]
    return fit_reconstructor(
        config, tmp_path / "cohort.csv", out=tmp_path / "recon", overrides=overrides, device="cpu", cache=tmp_path / "c"
    )


def test_a_bundle_trained_in_template_space_predicts_onto_the_grid_of_a_raw_scan(bundle, oblique, tmp_path):
    assert (bundle.anatomy.space, bundle.anatomy.spacing_mm, bundle.record["direction"]) == (MNI, 6.0, "axial")
    write_manifest([oblique], tmp_path / "site.csv")
    outcome = predict_cohort(bundle.folder, tmp_path / "site.csv", out=tmp_path / "out", maps=("all",), device="cpu")
    assert (outcome.done, outcome.failed) == (["sub-03"], {})
    scan = nib.load(oblique.images["FLAIR"])
    brain = nib.load(oblique.brain).get_fdata() > 0
    written = sorted(Path(tmp_path / "out").glob("sub-03/anat/*.nii.gz"))
    assert len(written) >= 4
    for path in written:
        image = nib.load(path)
        assert image.shape == scan.shape
        for name in ("srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_z", "sform_code", "qform_code"):
            assert image.header[name].tobytes() == scan.header[name].tobytes()
        assert image.header["pixdim"][:4].tobytes() == scan.header["pixdim"][:4].tobytes()
    score = nib.load(tmp_path / "out/sub-03/anat/sub-03_desc-anomaly_probseg.nii.gz").get_fdata()
    assert (score[~brain] == 0).all()
    assert (score[brain] > 0).mean() > 0.9
    record = json.loads((tmp_path / "out/sub-03/anat/sub-03_desc-anomaly_probseg.json").read_text())
    assert set(record["space"]) == {"name", "spacing_mm", "overlap", "outline", "apart_mm", "matrix"}
    assert record["space"]["overlap"] > 0.85
    assert np.array(record["space"]["matrix"]).shape == (4, 4)
    assert record["notes"]["space"] == MNI


def test_lesions_are_named_by_the_regions_of_an_atlas_of_that_space(bundle, oblique, tiny_detector, tmp_path):
    """Halves of the template's head, in the table of a scan that lies askew, and on its page."""
    shutil.copytree(bundle.folder, tmp_path / "calibrated")
    thresholds = {"default": "best-dice", "rules": {"best-dice": {"values": {"score": 0.0}}}}
    bundles.write_record(tmp_path / "calibrated", dict(bundle.record) | {"thresholds": thresholds})
    write_manifest([oblique], tmp_path / "site.csv")
    average = template()
    labels = np.full(average.brain.shape, 2, np.uint8)
    labels[np.arange(len(labels)) * average.affine[0, 0] + average.affine[0, 3] < 0] = 1
    atlas = write_nifti(tmp_path / "halves.nii.gz", labels, average.affine)
    (tmp_path / "names.tsv").write_text("index\tname\n1\tleft half\n2\tright half\n")
    asked = ["predict", tmp_path / "calibrated", tmp_path / "site.csv", "--out", tmp_path / "out", "--device", "cpu"]
    asked += ["--atlas", atlas, "--atlas-names", tmp_path / "names.tsv"]
    result = CliRunner().invoke(app, [str(part) for part in asked])
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "out").rglob("*_lesions.tsv")
    columns, row = (line.split("\t") for line in path.read_text().splitlines()[:2])
    stated = dict(zip(columns, row, strict=True))
    mask = nib.load(path.with_name("sub-03_label-lesion_desc-anomaly_mask.nii.gz"))
    record = json.loads(path.with_name("sub-03_desc-anomaly_probseg.json").read_text())
    places = millimetres(np.asarray(mask.dataobj) > 0, np.array(record["space"]["matrix"]) @ mask.affine)
    left = (places[:, 0] < -0.5).mean()
    assert stated["region"] == ("left half" if left > 0.5 else "right half")
    assert float(stated["region_share"]) == pytest.approx(max(left, 1 - left), abs=0.03)
    centre = np.array(record["space"]["matrix"]) @ [*(float(stated[f"{axis}_mm"]) for axis in "xyz"), 1.0]
    assert [float(stated[f"mni_{axis}"]) for axis in "xyz"] == pytest.approx(centre[:3], abs=0.15)
    assert [float(stated[f"mni_{axis}"]) for axis in "xyz"] == pytest.approx(places.mean(axis=0), abs=2)
    counted = Counter(place_at(place) for place in places[::7])
    assert stated["place"] == counted.most_common(1)[0][0]
    write_report(tmp_path / "out", out=tmp_path / "pages")
    words = words_of(tmp_path / "pages" / "sub-03.html")
    for said in (stated["region"], stated["place"], "MNI x (mm)", "by an affine; places are coarse"):
        assert said in words
    assert "corrected for their shading by N4 (Tustison et al. 2010" in words
    (tmp_path / "names.tsv").write_text("index\tname\n1\tother half\n2\tright half\n")
    again = CliRunner().invoke(app, [str(part) for part in asked])
    assert again.exit_code == 2
    assert "other predictions in the same place" in again.output
    native = {"out": tmp_path / "native", "device": "cpu"}
    with pytest.raises(ConfigError, match="atlas for a bundle that does not register scans: got space native"):
        predict_cohort(tiny_detector, tmp_path / "site.csv", atlas=atlas, atlas_names=tmp_path / "names.tsv", **native)
    with pytest.raises(ConfigError, match="names of labels without an atlas"):
        predict_cohort(bundle.folder, tmp_path / "site.csv", atlas_names=tmp_path / "names.tsv", **native)
    assert not (tmp_path / "native").exists()
