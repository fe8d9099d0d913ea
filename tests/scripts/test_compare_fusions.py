"""Forms of fusion on predictions that are there, against scikit-learn."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from hybriduad.cohort.manifest import read_manifest, write_manifest
from hybriduad.core.errors import DataError
from hybriduad.prediction.cohort import predict_cohort

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_fusions.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_fusions", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cohorts(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One case to learn from, and the others."""
    folder = tmp_path_factory.mktemp("fusions")
    cases = [case for case in read_manifest(tiny_cohort) if case.lesion is not None]
    write_manifest(cases[:1], folder / "fit.csv")
    write_manifest(cases[1:], folder / "test.csv")
    return folder / "fit.csv", folder / "test.csv"


@pytest.fixture(scope="module")
def predictions(tiny_detector: Path, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fusion-maps") / "predictions"
    predict_cohort(tiny_detector, tiny_cohort, out=folder, maps=("all",), device="cpu")
    return folder


def test_the_table_has_the_figures_of_scikit_learn(
    script: ModuleType, cohorts: tuple[Path, Path], predictions: Path, tmp_path: Path
) -> None:
    fit, test = cohorts
    text = script.compare(predictions, fit, predictions, test, tmp_path, "all", "all")
    assert text == (tmp_path / "fusions.md").read_text()
    with (tmp_path / "fusions.csv").open() as stream:
        rows = {row["fusion"]: row for row in csv.DictReader(stream)}
    assert set(rows) == set(script.fusions(script.scans(predictions, fit, None)))
    tested = script.scans(predictions, test, None)
    for name in ("map", "probability"):
        expected = np.mean([average_precision_score(scan.lesion, scan.maps[name]) for scan in tested])
        assert float(rows[name]["auprc"]) == pytest.approx(expected, abs=2e-3)
    for row in rows.values():
        gain = float(row["auprc"]) - float(rows["as stored"]["auprc"])
        assert float(row["difference"]) == pytest.approx(gain, abs=1e-6)


def test_what_is_rarer_on_healthy_tissue_ranks_higher(
    script: ModuleType, cohorts: tuple[Path, Path], predictions: Path
) -> None:
    learnt = script.scans(predictions, cohorts[0], None)
    rarity = script.fusions(learnt)["rarity, summed (Fisher)"]
    values = np.linspace(0, 1, 50)
    low = dict.fromkeys(script.WITNESSES, np.zeros(50))
    assert (np.diff(rarity({**low, "map": values})) >= 0).all()
    healthy = np.sort(np.concatenate([script._evenly(scan.maps["map"][~scan.lesion]) for scan in learnt]))
    share = (healthy[None] >= values[:, None]).mean(axis=1)
    ranks = rankdata(script._rarity(learnt)["map"](values).round(3), method="dense")
    assert (np.diff(ranks) >= 0).all()
    assert script._rarity(learnt)["map"](values)[0] == pytest.approx(-np.log(share[0]), abs=1e-3)


def test_people_on_both_sides_are_refused(
    script: ModuleType, cohorts: tuple[Path, Path], predictions: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="the same people on both sides"):
        script.compare(predictions, cohorts[0], predictions, cohorts[0], tmp_path, "all", "all")
    with pytest.raises(DataError, match="no case with a lesion and all maps"):
        script.compare(tmp_path, cohorts[0], predictions, cohorts[1], tmp_path, "all", "all")
