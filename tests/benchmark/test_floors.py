"""The rows of the shipped benchmark on coarse phantoms: no change may let the figures of a row fall.

Not which row is better: that takes more steps, patients and minutes. Each floor is about half of what the worse of two
seeds reaches, untrained networks give .03 to .04; of SADM and SADM_res a little under half of what one seed reaches; of
AE and DAE, which have learnt little after so few steps, half way from what they give untrained (.028 and .038). The
paper's row has none: its networks take minutes.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from hybriduad.benchmark.run import Outcome, run_benchmark
from hybriduad.config import files as configs
from hybriduad.evaluation.figures import MEAN

STEPS = ["train.steps=80", "train.batch=8", "train.warmup=10", "train.precision=float32"]
FLOORS = {
    "intensity": 0.6,
    "asymmetry": 0.45,
    "AE": 0.045,
    "DAE": 0.052,
    "cDDPM": 0.11,
    "restoration": 0.13,
    "Unet (synthetic)": 0.11,
    "Unet_res (synthetic)": 0.2,
    "SADM (synthetic)": 0.065,
    "SADM_res (synthetic)": 0.06,
    "default": 0.4,
    "Unet (7 labels)": 0.07,
    "Unet_res (7 labels)": 0.08,
    "SADM (7 labels)": 0.04,
    "SADM_res (7 labels)": 0.042,
    "default (7 labels)": 0.3,
    "Unet (synthetic + 7 labels)": 0.24,
    "Unet_res (synthetic + 7 labels)": 0.24,
    "SADM (synthetic + 7 labels)": 0.1,
    "SADM_res (synthetic + 7 labels)": 0.1,
    "default (synthetic + 7 labels)": 0.35,
    "Unet (all labels)": 0.13,
}


def coarse(folder: Path, seed: int = 0) -> Path:
    """The rows of the quick tier that have a floor, on 27 phantoms of 32 x 32 pixels."""
    config = yaml.safe_load((configs.shipped_folder() / "benchmark-quick.yaml").read_text())
    phantoms = {"pathology": "glioma", "subjects": 27, "share_healthy": 0.34, "seed": 1, "spacing_mm": [3.0, 3.0, 6.0]}
    config["cohorts"] = {"glioma": {"phantoms": phantoms}}
    config["tables"] = {"glioma": ["glioma"]}
    config["seeds"] = [seed]
    config["common"] |= {"reconstructor": [*STEPS, "anatomy.size=32"], "detector": STEPS}
    config["systems"] = {name: row for name, row in config["systems"].items() if name in FLOORS}
    path = folder / "coarse.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("floors")
    return run_benchmark(coarse(folder), out=folder / "out", folds=[1], device="cpu")


def test_no_row_falls_under_its_floor(outcome: Outcome) -> None:
    assert not outcome.failed
    with (outcome.out / "table.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["figure"] == "auprc" and row["how"] == MEAN]
    reached = {row["system"]: float(row["value"]) for row in rows}
    assert reached.keys() == FLOORS.keys()
    assert not {name: value for name, value in reached.items() if value < FLOORS[name]}
