"""Subjects as pure functions of their key, and cohorts on disk."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from bids_valid import bids_issues
from tiny import contents

from hybriduad.cohort.leakage import check_leakage, identities
from hybriduad.cohort.manifest import read_cohort, read_manifest
from hybriduad.core.errors import ConfigError, LeakageError
from hybriduad.phantom.cohort import pathology_of, write_cohort
from hybriduad.phantom.picture import draw_cohort
from hybriduad.phantom.subject import make_subject
from hybriduad.scan.volumes import read_mask, read_volume

TINY = {"contrasts": ("FLAIR",), "spacing_mm": (6.0, 6.0, 8.0)}
MIXED = {**TINY, "seed": 4, "pathology": "mixed", "share_healthy": 0.5}


def test_a_subject_is_a_pure_function_of_its_key() -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    a, b = (make_subject(1, 3, pathology="ms", **TINY).images["FLAIR"] for _ in range(2))
    np.testing.assert_array_equal(a, b)
    for seed, subject in ((1, 4), (2, 3)):
        assert not np.array_equal(a, make_subject(seed, subject, pathology="ms", **TINY).images["FLAIR"])
    both = make_subject(1, 3, pathology="ms", contrasts=("T1w", "FLAIR"), spacing_mm=TINY["spacing_mm"])
    np.testing.assert_array_equal(a, both.images["FLAIR"])
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_cohort_is_bids_with_a_manifest(tmp_path: Path) -> None:
    seen = []
    manifest = write_cohort(
        tmp_path / "cohort",
        subjects=4,
        **MIXED | {"contrasts": ("T1w", "FLAIR")},
        progress=lambda done, total: seen.append((done, total)),
    )
    root = manifest.parent
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    cases = read_manifest(manifest)
    assert cases == read_cohort(root)  # the manifest and the BIDS folder say the same
    assert [case.health for case in cases] == ["lesion", "healthy", "lesion", "healthy"]
    assert [case.attributes["pathology"] for case in cases] == ["glioma", "none", "stroke", "none"]
    for i, case in enumerate(cases):
        phantom = make_subject(4, i, pathology=pathology_of(i, "mixed", 0.5), **TINY)
        image = read_volume(case.images["FLAIR"])
        assert set(case.images) == {"T1w", "FLAIR"}
        np.testing.assert_allclose(image.data, phantom.images["FLAIR"], atol=0.51)  # rounded to int16
        np.testing.assert_allclose(image.affine, phantom.affine)
        np.testing.assert_array_equal(read_mask(case.brain).data, phantom.brain)
        assert (case.lesion is None) == (case.health == "healthy")
        assert set(case.lesion_free) == (set() if case.lesion is None else {"T1w", "FLAIR"})
        if case.lesion is not None:
            np.testing.assert_array_equal(read_mask(case.lesion).data, phantom.lesion)
            healthy = make_subject(4, i, **TINY)  # the same subject, never ill
            twin = read_volume(case.lesion_free["FLAIR"])
            np.testing.assert_array_equal(twin.data, np.round(healthy.images["FLAIR"]))
            np.testing.assert_array_equal(twin.affine, image.affine)
            assert (twin.data != image.data)[phantom.lesion].mean() > 0.8
    with (root / "participants.tsv").open() as file:
        people = list(csv.DictReader(file, delimiter="\t"))
    assert list(people[0]) == ["participant_id", "site", "age", "sex", "health", "pathology", "stage"]
    sidecar = json.loads((root / "sub-0001" / "anat" / "sub-0001_FLAIR.json").read_text())
    assert 1 < sidecar["InversionTime"] < 3
    kinds = {"": "raw", "derivatives/manual": "derivative", "derivatives/lesion-free": "derivative"}
    for folder, kind in kinds.items():
        assert json.loads((root / folder / "dataset_description.json").read_text())["DatasetType"] == kind


def test_the_stage_of_a_stroke_can_be_chosen_and_is_recorded(tmp_path: Path) -> None:
    stages = {}
    for kind in ("stroke", "stroke-acute", "stroke-chronic"):
        manifest = write_cohort(
            tmp_path / kind, subjects=4, seed=4, pathology=kind, share_healthy=0.25, workers=1, **TINY
        )
        cases = read_manifest(manifest)
        assert cases == read_cohort(manifest.parent)
        stages[kind] = [case.attributes.get("stage") for case in cases]
        assert cases[3].attributes["pathology"] == "none"
    assert stages["stroke-acute"] == ["acute"] * 3 + [None]
    assert stages["stroke-chronic"] == ["chronic"] * 3 + [None]
    assert set(stages["stroke"][:3]) <= {"acute", "chronic"}
    assert stages["stroke"][3] is None
    for number in range(3):
        place = f"sub-{number + 1:04d}/anat/sub-{number + 1:04d}_FLAIR.nii.gz"
        same = tmp_path / f"stroke-{stages['stroke'][number]}" / place
        assert (tmp_path / "stroke" / place).read_bytes() == same.read_bytes()


def test_maps_are_added_and_no_scan_of_a_case(tmp_path: Path) -> None:
    asked = {"subjects": 2, "seed": 4, "pathology": "ms", "workers": 1, **TINY}
    manifest = write_cohort(tmp_path / "cohort", **asked)
    before, listed = contents(tmp_path / "cohort"), read_manifest(manifest)
    write_cohort(tmp_path / "cohort", maps=True, **asked)
    after = contents(tmp_path / "cohort")
    added = {name for name in after if "derivatives/maps/" in name}
    assert {name: data for name, data in after.items() if name not in added} == before
    assert read_manifest(manifest) == read_cohort(tmp_path / "cohort") == listed
    phantom = make_subject(4, 0, pathology="ms", **TINY)
    fluid = phantom.brain & (phantom.tissue[2] > 0.95)
    expected = {"T1map": (phantom.t1_ms / 1000, 2.5), "T2map": (phantom.t2_ms / 1000, 0.33), "PDmap": (phantom.pd, 1.0)}
    for suffix, (data, usual) in expected.items():
        path = tmp_path / "cohort" / "derivatives" / "maps" / "sub-0001" / "anat" / f"sub-0001_{suffix}.nii.gz"
        image = read_volume(path)
        np.testing.assert_allclose(image.data, data, rtol=1e-6)
        assert image.data[fluid].mean() == pytest.approx(usual, rel=0.15)
        assert json.loads(path.with_name(f"sub-0001_{suffix}.json").read_text())["Units"] in ("s", "arbitrary")
    assert bids_issues(tmp_path / "cohort" / "derivatives" / "maps")[0] == []


def test_cohorts_of_different_seeds_are_different_people(tmp_path: Path) -> None:
    """The guard against leakage knows a person by data set and subject; what is refused is not only the images."""
    config = {**MIXED, "subjects": 2}
    a, b, again = (
        read_manifest(write_cohort(tmp_path / name, **config | {"seed": seed}))
        for name, seed in (("a", 4), ("b", 5), ("again", 4))
    )
    assert [case.subject for case in a] == [case.subject for case in b]
    used = identities(a, "fit")
    check_leakage(b, used)
    assert not set(used) & set(identities(b, "fit"))
    assert identities(again, "fit") == used
    with pytest.raises(LeakageError, match="2 of 2 cases"):
        check_leakage(again, used)
    # A new scan of the same person is still that person, read from either the manifest or the folder.
    other = write_cohort(tmp_path / "other", **config | {"spacing_mm": (8.0, 8.0, 8.0)})
    for cases in (read_manifest(other), read_cohort(other.parent)):
        with pytest.raises(LeakageError, match="same subject"):
            check_leakage(cases, used)


def test_continuing_keeps_what_is_there_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole = write_cohort(tmp_path / "whole", subjects=3, **MIXED).parent
    write_cohort(tmp_path / "grown", subjects=1, **MIXED)
    first = tmp_path / "grown" / "sub-0001" / "anat" / "sub-0001_FLAIR.nii.gz"
    stamp = first.stat().st_mtime_ns
    grown = write_cohort(tmp_path / "grown", subjects=3, **MIXED).parent
    assert first.stat().st_mtime_ns == stamp
    assert contents(grown) == contents(whole)


def test_a_killed_run_is_completed(tmp_path: Path) -> None:
    whole = contents(write_cohort(tmp_path / "a", subjects=2, **MIXED).parent)

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        write_cohort(tmp_path / "b", subjects=2, **MIXED, progress=kill)
    mask = tmp_path / "b" / "derivatives" / "manual" / "sub-0001" / "anat" / "sub-0001_label-lesion_mask.nii.gz"
    mask.unlink()  # as if it had ended between two files of a subject
    assert contents(write_cohort(tmp_path / "b", subjects=2, **MIXED).parent) == whole


def test_another_config_in_the_same_place_names_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    write_cohort(out, subjects=2, **MIXED)
    with pytest.raises(ConfigError, match=r"phantoms of another config.*seed 4.*seed 5.*--overwrite"):
        write_cohort(out, subjects=2, **{**MIXED, "seed": 5})
    with pytest.raises(ConfigError, match=r"larger phantom cohort.*--overwrite"):
        write_cohort(out, subjects=1, **MIXED)
    assert len(read_cohort(write_cohort(out, subjects=1, **{**MIXED, "seed": 5}, overwrite=True))) == 1
    assert not (out / "sub-0002").exists()


def test_a_folder_of_something_else_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="something other than phantoms"):
            write_cohort(tmp_path, subjects=1, **MIXED, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ConfigError, match="needs a folder"):
        write_cohort(tmp_path / "thesis.txt", subjects=1, **MIXED)


def test_a_damaged_record_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "phantom.json").write_text("[")
    with pytest.raises(ConfigError, match=r"damaged record.*--overwrite"):
        write_cohort(tmp_path, subjects=1, **MIXED)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"subjects": 0}, "empty phantom cohort"),
        ({"share_healthy": 1.5}, "share of healthy"),
        ({"pathology": "flu"}, "unknown pathology: got 'flu'"),
        ({"contrasts": ("DWI",)}, "unknown phantom contrast"),
        ({"contrasts": ("FLAIR", "FLAIR")}, "no or repeated contrasts"),
        ({"spacing_mm": (0.0, 1.0, 1.0)}, "impossible phantom grid"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        write_cohort(tmp_path / "out", **{"subjects": 1, **MIXED, **wrong})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 1 / 3, 0.5, 0.7, 1.0])
def test_of_any_first_subjects_the_stated_share_is_healthy(share: float) -> None:
    kinds = [pathology_of(i, "mixed", share) for i in range(30)]
    for n in range(31):
        assert kinds[:n].count(None) == int(n * share + 1e-9)
    sick = [kind for kind in kinds if kind]
    # The later pathologies are not among the mixed: such a cohort stays what it was.
    assert sick == [("glioma", "stroke", "ms")[i % 3] for i in range(len(sick))]
    assert {pathology_of(i, None, share) for i in range(5)} == {None}


def test_the_picture_shows_every_phantom(tmp_path: Path) -> None:
    cases = read_manifest(write_cohort(tmp_path / "two", subjects=2, **MIXED | {"contrasts": ("T1w", "FLAIR")}))
    from matplotlib.image import imread

    draw_cohort(cases[::-1], ("T1w", "FLAIR"), tmp_path / "pictures" / "two.png")
    shown = imread(tmp_path / "pictures" / "two.png")
    halves = np.array_split(shown[..., :3].mean(axis=-1), 2, axis=1)
    assert all(half.std() > 0.05 for half in halves)
    red = (shown[..., 0] > 0.8) & (shown[..., 1] < 0.3)
    assert [case.health for case in cases] == ["lesion", "healthy"]
    assert red.any()
    assert not red[:, : shown.shape[1] // 2].any()
    assert not red[: shown.shape[0] // 2].any()
