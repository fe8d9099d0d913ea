"""Machines of a cluster on which the package that finds brains is missing or another: no fault of the scans."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import AFFINE, expected_box, write_head
from tiny import write_nifti

from hybriduad.core.errors import ConfigError, DataError, ToolError
from hybriduad.core.types import Case
from hybriduad.detector.bundle import verify
from hybriduad.prediction import failures
from hybriduad.prediction.runners.cluster import _Actor
from hybriduad.prediction.work import Request, Result, Worker, complete, fault_of_machine, lies_in_files

MISSING = "brain by a package that is not installed: got deepbet; pip install '.[strip]' in the checkout."


@pytest.fixture
def request_of_brains(tiny_detector: Path, tmp_path: Path) -> Request:
    """As the machine that asks sends it, which has deepbet 9.9."""
    return Request(tiny_detector, tmp_path, ("score",), device="cpu", brain="deepbet", way="deepbet 9.9")


def test_a_machine_is_judged_by_what_is_installed_there(packages: Path, request_of_brains: Request) -> None:
    anatomy = verify(request_of_brains.bundle).anatomy
    assert fault_of_machine(anatomy, request_of_brains) is None
    other = fault_of_machine(anatomy, replace(request_of_brains, way="deepbet 9.8"))
    assert str(other) == (
        "brains by another package than was asked for: got deepbet 9.9, expected deepbet 9.8; "
        "install the same packages on every machine."
    )
    shutil.rmtree(packages)
    fault = fault_of_machine(anatomy, request_of_brains)
    assert str(fault) == MISSING
    assert isinstance(fault, ConfigError)
    assert fault_of_machine(anatomy, replace(request_of_brains, brain="estimate", way="estimate")) is None


@pytest.mark.parametrize(
    ("error", "of_files"),
    [
        (DataError("damaged file"), True),
        (ToolError("deepbet 9.9 failed"), False),
        (ConfigError("brain by a package that is not installed"), False),
        (MemoryError(), False),
        (OSError("disk full"), False),
    ],
)
def test_what_is_tried_again(error: Exception, of_files: bool) -> None:
    assert lies_in_files(error) is of_files


def test_a_case_that_needs_the_package_fails_there_and_is_tried_again(
    packages: Path, request_of_brains: Request, tmp_path: Path
) -> None:
    scan = {"FLAIR": write_head(tmp_path / "FLAIR.nii.gz")}
    brain = write_nifti(tmp_path / "brain.nii.gz", expected_box().astype(np.uint8), AFFINE)
    cases = Case("heads", "01", scan), Case("heads", "02", scan, brain=brain)
    away = packages.rename(tmp_path / "elsewhere")
    (tmp_path / "failures").mkdir()
    actor = _Actor(request_of_brains, cases, 1)
    results: list[Result] = [actor({"place": np.array([place])})["result"][0] for place in (0, 1)]
    assert [(result.case, result.status, result.reason) for result in results] == [
        ("sub-01", "failed", MISSING),
        ("sub-02", "done", ""),
    ]
    assert failures.failures_in(tmp_path)[0].reason == MISSING
    assert failures.failed_for_good(tmp_path, cases[0]) is None
    away.rename(packages)
    worker = Worker(request_of_brains)
    assert [complete(worker, case, worker.ahead(case)).status for case in cases] == ["done", "kept"]
    assert failures.failures_in(tmp_path) == []
