"""Cases that a model has seen, beside cases that nobody can vouch for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hybriduad.cohort.leakage import check_unseen, identities
from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import LeakageError
from hybriduad.scan import volumes


def test_what_cannot_be_read_is_named_and_ends_nothing(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = read_cohort(tiny_cohort)
    used = identities(cases[2:], "fit")
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    broken = replace(cases[0], images={"FLAIR": tmp_path / "broken.nii.gz"})
    known = volumes.voxel_digest

    def faulty(path: Path) -> str:
        return known(path) if path != cases[1].images["FLAIR"] else [][0]

    monkeypatch.setattr(volumes, "voxel_digest", faulty)
    failed = check_unseen([broken, cases[1]], used, ["FLAIR"])
    first, second = ((case.dataset, case.name) for case in cases[:2])
    assert list(failed) == [first, second]
    assert "broken.nii.gz" in failed[first]
    assert failed[second].startswith("unexpected IndexError: list index out of range")
    with pytest.raises(LeakageError, match=r"1 of 1 cases.*sub-03.*role fit"):
        check_unseen([broken, *cases[1:]], used, ["FLAIR"])
    assert check_unseen([broken, *cases[1:]], {}, ["FLAIR"]) == {}
