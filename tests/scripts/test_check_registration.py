"""Known maps of a header, recovered or counted as what they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from hybriduad.config.runs import Anatomy
from hybriduad.scan.registration import Field, Registration
from hybriduad.scan.template import Template

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_registration.py"


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_registration", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_start_counts_as_what_it_is(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is recovered, one off without a word, one unsure, and one refused for its outline."""
    ball = np.linalg.norm(np.indices((24, 28, 22)).T - np.array([11.5, 13.5, 10.5]), axis=-1).T < 9
    rng = np.random.default_rng(0)
    data = np.where(ball, 100 + 10 * rng.random(ball.shape), 0).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([6.0, 6.0, 6.0, 1.0])), tmp_path / "T1w.nii.gz")
    away, nowhere = np.eye(4), np.eye(4)
    away[1, 3], nowhere[0, 3] = 5.0, 1e4
    as_it_is = (np.eye(4), np.eye(4), 0.1)
    starts = [as_it_is, (away, np.eye(4), 0.1), (away, np.eye(4), 3.0), (np.eye(4), nowhere, 0.1)]
    answers = iter([as_it_is, *starts])

    def register(scan: Field, _: Template) -> Registration:
        change, outline, apart_mm = next(answers)
        exact = np.linalg.inv(scan.affine)
        return Registration(exact @ change, exact @ outline, apart_mm)

    def overlap(scan: Field, matrix: np.ndarray, _: Anatomy) -> float:
        return 0.95 if np.abs(matrix @ scan.affine).max() < 1e3 else 0.2

    monkeypatch.setattr(program, "register", register)
    monkeypatch.setattr(program, "overlap", overlap)
    program.main([str(tmp_path / "T1w.nii.gz"), "--starts", "4"])
    head, line = (row.split("\t") for row in capsys.readouterr().out.splitlines())
    row = dict(zip(head, line, strict=True))
    assert (row["starts"], row["recovered"], row["missed"], row["unsure"], row["refused"]) == ("4", "2", "1", "1", "1")
    assert float(row["worst_mm"]) == pytest.approx(5.0, rel=0.12)  # in millimetres before the scale of the map
    assert row["brain"] == "non-zero voxels of a stripped scan"
