"""The script that spoils clean scans: its AUROC against scikit-learn, what it spoils, and its table."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hybriduad.cohort.manifest import read_cohort
from hybriduad.detector.loading import load_detector
from hybriduad.scan.volumes import read_volume

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_quality.py"


@pytest.fixture(scope="module")
def check_quality() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_quality", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_holds_the_auroc_and_what_is_beyond_the_limit(check_quality: ModuleType) -> None:
    values = np.random.default_rng(0).integers(0, 6, 20).astype(float)
    bad, good = ([{"noise": (float(v), bool(v > 4))} for v in part] for part in (values[:8] + 1, values[8:]))
    text = check_quality.table({"clean": good, "noisy": bad}, {"clean": [], "noisy": ["nothing but noise"]})
    expected = roc_auc_score([1] * 8 + [0] * 12, [row["noise"][0] for row in bad + good])
    above = sum(row["noise"][1] for row in bad)
    assert f"| noisy | 9 | 1 | {above} | {expected:.2f}, {above} flagged |" in text
    assert f"| clean | 12 | 0 | {sum(row['noise'][1] for row in good)} |" in text


def test_every_kind_of_damage_is_another_scan(check_quality: ModuleType, tiny_cohort: Path) -> None:
    case = read_cohort(tiny_cohort)[2]
    clean = read_volume(case.images["FLAIR"]).data
    kinds = dict(check_quality.spoilt(case, "FLAIR"))
    kinds |= dict(check_quality.swapped(case, "FLAIR"))
    assert {"noise alone", "upside down", "T1w as FLAIR", "left third cut off"} <= set(kinds)
    for image in kinds.values():
        assert image.data.shape != clean.shape or not np.array_equal(image.data, clean)
        assert image.data.shape == image.grid.shape


def test_resliced_scans_are_compared_where_they_lie(
    check_quality: ModuleType, tiny_cohort: Path, tiny_detector: Path, tmp_path: Path
) -> None:
    case = replace(read_cohort(tiny_cohort)[0], brain=None)
    found = check_quality.resliced(load_detector(tiny_detector, "cpu"), case, "FLAIR", tmp_path)
    assert list(found) == ["Dice of the mask, resliced by half a voxel", "Dice of the mask, resliced by half a slice"]
    assert all(0.3 < value < 1 for value in found.values())
