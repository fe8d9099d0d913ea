"""Ways to the brain side by side: the share of a lesion inside, volumes, and agreement with the first way."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import AFFINE, BOX_ML, SHAPE, fake_deepbet, forget_packages, write_head
from tiny import write_nifti

from hybriduad.cohort.manifest import write_manifest
from hybriduad.core.types import Case

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_brain_masks.py"


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    fake_deepbet(tmp_path / "packages")
    lesion = np.zeros(SHAPE, dtype=np.uint8)
    lesion[-64:-44, 40:50, 10:12] = 1  # of 20 columns the last 10 are in the fake's box, all in the brain
    files = {"FLAIR": write_head(tmp_path / "FLAIR.nii.gz")}
    mask = write_nifti(tmp_path / "lesion.nii.gz", lesion, AFFINE)
    write_manifest([Case("heads", "01", files, lesion=mask)], tmp_path / "heads.csv")
    spec = importlib.util.spec_from_file_location("compare_brain_masks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path / "heads.csv"), "--pictures", str(tmp_path / "pictures")])
    module.main()
    forget_packages()
    table = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["case", "way", "inside", "volume_ml", "dice", "seconds"]
    ours, box = table[1:3]
    assert (ours[:3], ours[4]) == (["sub-01", "estimate", "1.0000"], "1.0000")
    assert box[:3] == ["sub-01", "deepbet 9.9", "0.5000"]
    assert float(box[3]) == pytest.approx(BOX_ML, abs=1e-3)
    assert 0.3 < float(box[4]) < 1
    assert table[4][:2] == ["mean of 1", "deepbet 9.9"]
    assert (tmp_path / "pictures" / "sub-01.png").stat().st_size > 1000
