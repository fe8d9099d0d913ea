from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hybriduad.cohort.digest import cohort_digest
from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.scan.digests import file_digest, mask_files


@pytest.fixture
def case(tmp_path: Path) -> Case:
    for name in ("scan", "lesion"):
        (tmp_path / f"{name}.nii").write_bytes(name.encode())
    return Case("set", "01", {"FLAIR": tmp_path / "scan.nii"}, lesion=tmp_path / "lesion.nii", health="lesion")


def test_the_same_content_under_another_name_is_the_same_work(case: Case, tmp_path: Path) -> None:
    before = cohort_digest([case])
    assert (
        cohort_digest([replace(case, images={"FLAIR": case.images["FLAIR"].rename(tmp_path / "moved.nii")})]) == before
    )
    assert len(before) == 64


def test_everything_that_work_depends_on_makes_it_another(case: Case) -> None:
    changed = [
        [case, replace(case, subject="02")],
        [replace(case, dataset="else")],
        [replace(case, session="1")],
        [replace(case, health="unknown")],
        [replace(case, reference="FLAIR")],
        [replace(case, lesion=None)],
        [replace(case, lesion=None, ignore=case.lesion)],
        [replace(case, images={"T1w": case.images["FLAIR"]})],
        *([replace(case, attributes={f"{kind}_labels": "1 4"})] for kind in ("brain", "lesion", "ignore")),
    ]
    digests = [cohort_digest(cases) for cases in ([case], *changed)]
    assert len(set(digests)) == len(digests)
    assert cohort_digest([replace(case, attributes={"site": "A"}, split="train")]) == digests[0]
    assert cohort_digest([replace(case, lesion_free=case.images)]) == digests[0], "nothing is learnt from it"


def test_a_file_of_the_same_name_and_size_with_other_content(case: Case) -> None:
    before = cohort_digest([case])
    for path in (case.lesion, case.images["FLAIR"]):
        assert path is not None
        path.write_bytes(path.read_bytes()[::-1])
        assert cohort_digest([case]) != before
        before = cohort_digest([case])


def test_a_file_that_cannot_be_read(case: Case, tmp_path: Path) -> None:
    lost = replace(case, lesion=tmp_path / "lost.nii")
    assert cohort_digest([lost]) not in (cohort_digest([case]), cohort_digest([replace(case, lesion=None)]))
    with pytest.raises(DataError, match=r"missing file in .*lost\.nii"):
        file_digest(tmp_path / "lost.nii")


def test_masks_of_a_case(case: Case) -> None:
    assert mask_files(case) == {"lesion": case.lesion}
