"""Predictions of the tiny cohort with two known lesions each, and their report; made once, read-only."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from reported import HOSTILE, SCRIPT, edit, give_lesions


@pytest.fixture(scope="session")
def predictions(tiny_detector: Path, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every map of 01 to 03, the first two with two lesions; 02 with every key that a record may have; 09 failed."""
    from hybriduad.prediction.cohort import predict_cohort

    out = tmp_path_factory.mktemp("reported") / "predictions"
    predict_cohort(tiny_detector, tiny_cohort, out=out, maps=("all",), device="cpu")
    for case in ("sub-01", "sub-02"):
        give_lesions(out / case / "anat", case)
    edit(out / "sub-01/anat/sub-01_desc-anomaly_probseg.json", quality=None, confidence=None)
    flag = {"name": "low contrast", "value": 0.1, "limit": 0.2, "sentence": "Grey and white matter look alike."}
    edit(
        out / "sub-02/anat/sub-02_desc-anomaly_probseg.json",
        quality={"flags": [flag], "out_of_distribution": {"distance": 31.0, "limit": 20.0}},
        space={"name": "MNI152", "spacing_mm": [1, 1, 1], "overlap": 0.93, "matrix": []},
        confidence={
            "scan_p": 0.04,
            "controls": 24,
            "statement": "At most 4 % of healthy scans look so.",
            "predicted_dice": {"value": 0.71, "interval": [0.42, 0.93], "coverage": 0.8, "cases": 8},
        },
    )
    (out / "failures.tsv").write_text(
        "case\treason\nsub-09\tdamaged file in /data/Doe, Jane/scan.nii.gz: got nothing.\n"
    )
    return out


@pytest.fixture(scope="session")
def scores(predictions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation, as evaluate writes it, of 01."""
    folder = tmp_path_factory.mktemp("scores")
    bundle = json.loads((predictions / "model.json").read_text())["bundle"]
    (folder / "request.json").write_text(json.dumps({"bundle": bundle}))
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["case", "system", "dice", "auprc", "hd95"], ["sub-01", "map", "0.1", "0.1", ""]])
        writer.writerow(["sub-01", "score", "0.731", "0.842", ""])
    return folder


@pytest.fixture(scope="session")
def report(predictions: Path, tiny_cohort: Path, scores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of these predictions."""
    from hybriduad.report.build import write_report

    out = tmp_path_factory.mktemp("pages") / "report"
    outcome = write_report(predictions, out=out, cohort=tiny_cohort, scores=scores)
    assert (outcome.done, outcome.failed) == (["sub-01", "sub-02", "sub-03"], {})
    return out


@pytest.fixture(scope="session")
def hostile(predictions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of predictions whose case, and every text of whose record and tables, is markup; without a cohort."""
    from hybriduad.report.build import write_report

    source = tmp_path_factory.mktemp("hostile") / "predictions"
    shutil.copytree(predictions, source)
    for case in ("sub-02", "sub-03"):
        shutil.rmtree(source / case)
    (source / "sub-01").rename(source / "sub-x")
    for path in (source / "sub-x" / "anat").iterdir():
        path.rename(path.with_name(path.name.replace("sub-01", HOSTILE)))
    folder = source / "sub-x" / "anat"
    record = folder / f"{HOSTILE}_desc-anomaly_probseg.json"
    parts = json.loads(record.read_text())["parts"]
    moved = {key: f"sub-x/anat/{Path(path).name.replace('sub-01', HOSTILE)}" for key, path in parts.items()}
    texts = {key: SCRIPT for key in ("dataset", "rule")}
    edit(
        record,
        parts=moved,
        versions={SCRIPT: SCRIPT},
        brain={"method": SCRIPT, "volume_ml": 1},
        quality={"flags": [{"name": SCRIPT, "sentence": SCRIPT}], "out_of_distribution": None},
        confidence={"scan_p": None, "controls": 3, "statement": SCRIPT},
        space={"name": SCRIPT},
        **texts,
    )
    table = folder / f"{HOSTILE}_desc-anomaly_lesions.tsv"
    table.write_text(table.read_text().replace("near_blind_spot", SCRIPT).replace("\tno\n", f"\t{SCRIPT}\n"))
    (source / "failures.tsv").write_text(f"case\treason\n{HOSTILE}-2\t{SCRIPT}\n")
    out = tmp_path_factory.mktemp("pages") / "hostile"
    outcome = write_report(source, out=out)
    assert (outcome.done, outcome.failed) == ([HOSTILE], {})
    return out
