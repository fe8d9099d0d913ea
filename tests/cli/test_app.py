"""The command line: every verb parses, hands over, reports and exits as promised."""

from __future__ import annotations

import json
import logging
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner
from verbs import run

import hybriduad
from hybriduad.cli.app import app
from hybriduad.core.errors import DataError

VERBS = [
    "phantom",
    "index",
    "fit-reconstructor",
    "fit-detector",
    "calibrate",
    "predict",
    "evaluate",
    "compare",
    "paint",
    "import-dicom",
    "fill",
    "dicom-seg",
    "blind-spots",
    "operating-point",
    "report",
    "anomalies",
    "benchmark",
    "speed",
    "demo",
    "show",
    "doctor",
]


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("hybriduad: ")
    assert result.stderr.endswith(".\n")
    assert result.stderr.count("\n") == 1, "one sentence"
    return result.stderr


def test_help_lists_every_verb_and_says_research_use_only() -> None:
    text = run("--help").stdout
    listed = re.findall(r"^  ([a-z-]+)  ", text.partition("Commands:")[2], flags=re.MULTILINE)
    assert listed == VERBS
    assert "Research use only" in text


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert "..." not in run("--help").stdout.partition("Commands:")[2]  # no summary is cut


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_answers_in_under_a_second(arguments: list[str]) -> None:
    """In processor time, which on an idle machine is what passes on the clock and on a busy one still says the same."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    subprocess.run([sys.executable, "-m", "hybriduad", *arguments], check=True, capture_output=True)
    assert 0 < spent() - before < 1.0


def test_version() -> None:
    from importlib.metadata import version

    assert run("--version").stdout.strip() == hybriduad.__version__ == version("hybriduad")


def test_no_argument_shows_help() -> None:
    assert "Usage: " in run().output


def test_unknown_verb_option_and_missing_argument_exit_with_2() -> None:
    for arguments in (["predikt"], ["predict", "--nope"], ["predict"], ["show"]):
        assert run(*arguments).exit_code == 2


def test_our_errors_are_one_sentence_and_others_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybriduad.cli import description

    def fail(*_: Any) -> str:
        raise DataError("something", where="here")

    monkeypatch.setattr(description, "describe", fail)
    assert refused("show", "synthetic") == "hybriduad: something in here.\n"

    def crash(*_: Any) -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(description, "describe", crash)
    result = run("show", "synthetic")
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_show_config_resolves_overrides() -> None:
    shown = yaml.safe_load(run("show", "synthetic", "--set", "train.lr=1e-4", "--set", "seed=5").stdout)
    assert (shown["kind"], shown["train"]["lr"], shown["seed"]) == ("detector", 1e-4, 5)


def test_show_unknown_config_suggests() -> None:
    assert "perhaps 'synthetic' is meant" in refused("show", "synthetik")


def test_show_bundle(tiny_detector: Path) -> None:
    shown = yaml.safe_load(run("show", tiny_detector).stdout)
    assert (shown["kind"], shown["direction"]) == ("detector", "axial")
    assert shown["config"]["segmenter"]["encoder"] == "tu-test_resnet"
    assert shown["reconstructor"]["config"]["model"]["name"] == "ddpm"
    assert "Research use only" in shown["intended_use"]
    assert "never changes" in refused("show", tiny_detector, "--set", "seed=1")


def test_doctor(tiny_detector: Path, tmp_path: Path) -> None:
    good = run("doctor", tiny_detector)
    assert good.exit_code == 0, good.output
    assert "Research use only" in good.stdout
    assert re.search(r"^ok  torch: \d", good.stdout, flags=re.MULTILINE)
    assert f"ok  bundle {tiny_detector}: detector for FLAIR" in good.stdout
    bad = run("doctor", tiny_detector, tmp_path / "nothing")
    assert bad.exit_code == 2
    assert f"BAD bundle {tmp_path / 'nothing'}: no bundle in" in bad.stdout


def test_index(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    for subject in ("01", "02", "03"):
        path = tmp_path / "raw" / f"sub-{subject}" / "anat" / f"sub-{subject}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.arange(64, dtype=np.float32).reshape(4, 4, 4), affine), path)
    out = tmp_path / "cohort.csv"
    result = run("index", "bids", tmp_path / "raw", "--out", out, "--split", "train=2", "--split", "test=1")
    assert result.exit_code == 0, result.output
    assert f"3 cases in {out}" in result.stdout
    assert "train: 2 subjects, 2 cases (2 unknown)" in result.stdout
    assert "WARNING" not in result.stderr
    splits = sorted(row.split(",")[-1] for row in out.read_text().splitlines()[1:])
    assert splits == ["test", "train", "train"]
    assert "got 'train=many', expected NAME=32 or NAME=0.8" in refused(
        "index", "bids", tmp_path / "raw", "--out", out, "--split", "train=many"
    )
    again = tmp_path / "again.csv"
    result = run("index", "csv", out, "--out", again, "--split", "train=1", "--split", "test=2", "--seed", 4)
    assert "test: 2 subjects, 2 cases" in result.stdout
    assert [row.split(",")[:3] for row in again.read_text().splitlines()] == [
        row.split(",")[:3] for row in out.read_text().splitlines()
    ]
    thirds = tmp_path / "thirds.csv"
    shares = ["--split", "train=0.5", "--split", "validation=0.5"]
    result = run("index", "bids", tmp_path / "raw", "--out", thirds, "--fold", "2/3", *shares)
    assert "test: 1 subjects, 1 cases" in result.stdout
    assert "expected K/N, as 1/3" in refused("index", "bids", tmp_path / "raw", "--out", out, "--fold", "2", *shares)
    assert "bad shares: got {}" in refused("index", "bids", tmp_path / "raw", "--out", out, "--fold", "2/3")
    assert "column to stratify by that no case has: got ['hospital']" in refused(
        "index", "bids", tmp_path / "raw", "--out", out, "--split", "train=2", "--stratify", "hospital"
    )


def test_phantom_writes_a_cohort_that_continues(tmp_path: Path) -> None:
    arguments = ["phantom", "--out", tmp_path / "cohort", "--seed", 3, "--pathology", "glioma", "--contrast", "FLAIR"]
    arguments += ["--spacing-mm", 6, 6, 8]
    result = run(*arguments, "--subjects", 1)
    assert result.exit_code == 0, result.output
    scans = sorted((tmp_path / "cohort").glob("sub-*/anat/*_FLAIR.nii.gz"))
    assert len(scans) == 1
    before = scans[0].stat().st_mtime_ns
    assert run(*arguments, "--subjects", 2, "--picture", tmp_path / "two.png").exit_code == 0
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "cohort").glob("sub-*"))) == 2
    assert scans[0].stat().st_mtime_ns == before
    assert "--overwrite" in refused(*arguments, "--subjects", 2, "--slice-thickness-mm", 4)  # another cohort
    assert json.loads((tmp_path / "cohort" / "phantom.json").read_text())["slice_thickness_mm"] == 8.0


def test_phantom_takes_every_pathology() -> None:
    from typing import get_args

    from hybriduad.cli import options
    from hybriduad.phantom.pathology import PATHOLOGIES

    choices, none = get_args(get_args(options.Pathology)[0])
    assert none is type(None)
    assert set(get_args(choices)) == {*PATHOLOGIES, "mixed"}


def test_predict_exits_3_and_lists_the_failed_case_last(tiny_cohort: Path, tiny_detector: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from hybriduad.cohort.manifest import read_cohort, write_manifest

    good, failing, _ = read_cohort(tiny_cohort)
    broken = tmp_path / "sub-02_FLAIR.nii.gz"
    broken.write_bytes(failing.images["FLAIR"].read_bytes()[:2000])
    write_manifest([replace(failing, images={"FLAIR": broken}), good], tmp_path / "cohort.csv")
    out = tmp_path / "predictions"
    result = run("predict", tiny_detector, tmp_path / "cohort.csv", "--out", out, "--maps", "score", "--maps", "mask")
    assert result.exit_code == 3, result.output
    assert f"1 done, 0 kept, 1 failed, in {out}" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("failed: sub-02: damaged or truncated file")
    written = sorted(path.name for path in (out / "sub-01" / "anat").glob("*.nii.gz"))
    assert written == ["sub-01_desc-anomaly_probseg.nii.gz", "sub-01_label-lesion_desc-anomaly_mask.nii.gz"]
    again = run("predict", tiny_detector, tmp_path / "cohort.csv", "--out", out, "--maps", "score", "--maps", "mask")
    assert "0 done, 1 kept, 1 failed" in again.stdout


def test_anomalies_draws_a_picture(tiny_cohort: Path, tmp_path: Path) -> None:
    scan = tiny_cohort.parent / "sub-03" / "anat" / "sub-03_FLAIR.nii.gz"
    out = tmp_path / "anomalies.png"
    result = run("anomalies", "synthetic", scan, "--out", out, "--count", 2)
    assert result.exit_code == 0, result.output
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "belongs to 'hybriduad anomalies all'" in refused(
        "anomalies", "synthetic", scan, "--out", out, "--cohort", tiny_cohort
    )
    out = tmp_path / "all.png"
    result = run("anomalies", "all", scan, "--out", out, "--cohort", tiny_cohort, "--set", "anomalies=[{name: warp}]")
    assert result.exit_code == 0, result.output
    assert out.read_bytes().startswith(b"\x89PNG")
    assert result.stdout == out.with_suffix(".md").read_text()
    assert "| warp |" in result.stdout


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the inputs that the calls below name."""
    for name in ("c.csv", "det", "scan.nii", "predictions"):
        (tmp_path / "given" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "given")


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit-reconstructor", "restoration", "nowhere.csv", "--out", "o"),
        ("fit-detector", "synthetic", ".", "--reconstructor", "nowhere.csv", "--out", "o"),
        ("predict", "nowhere.csv", ".", "--out", "o"),
        ("evaluate", "nowhere.csv", ".", "--out", "o"),
        ("index", "bids", "nowhere.csv", "--out", "o"),
    ],
)
def test_a_path_that_is_not_there_is_told_before_anything_is_imported(arguments: tuple[str, ...]) -> None:
    code = f"""
import sys
from typer.testing import CliRunner
from hybriduad.cli.app import app
result = CliRunner().invoke(app, {list(arguments)!r})
assert result.exit_code == 2, result.output
assert result.stderr.startswith("hybriduad: no such "), result.stderr
assert "got nowhere.csv, expected a" in result.stderr, result.stderr
assert not {{"torch", "lightning", "nibabel"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class Handed(Exception):
    """Carries what a verb handed over."""


def handed(monkeypatch: pytest.MonkeyPatch, target: str, *arguments: object) -> tuple[tuple, dict[str, Any]]:
    """The arguments with which a verb calls ``target``, which is replaced."""

    def catch(*args: Any, **kwargs: Any) -> None:
        raise Handed(args, kwargs)

    monkeypatch.setattr(target, catch)
    result = run(*arguments)
    assert isinstance(result.exception, Handed), result.output
    return result.exception.args[0], result.exception.args[1]


@pytest.mark.usefixtures("given")
def test_fit_reconstructor_hands_everything_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = ["--set", "train.steps=3", "--set", "seed=1", "--device", "cpu", "--cache", tmp_path, "--overwrite"]
    args, kwargs = handed(
        monkeypatch,
        "hybriduad.training.fitting.fit_reconstructor",
        "fit-reconstructor",
        "restoration",
        "c.csv",
        "--out",
        "o",
        "--data-licence",
        "CC0",
        *options,
    )
    assert args == ("restoration", "c.csv")
    assert kwargs == {
        "out": Path("o"),
        "overrides": ["train.steps=3", "seed=1"],
        "brain": None,
        "device": "cpu",
        "cache": tmp_path,
        "overwrite": True,
        "data_licence": "CC0",
    }


@pytest.mark.usefixtures("given")
def test_the_verbs_of_other_programs_hand_everything_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = "hybriduad.exchange.dicom_import.import_dicom"
    stated = ["--contrast", "7=FLAIR", "--contrast", "a=b=none"]
    args, kwargs = handed(monkeypatch, target, "import-dicom", tmp_path, "--out", "o", "--subject", "P1", *stated)
    assert args == (tmp_path,)
    assert kwargs == {
        "out": Path("o"),
        "subject": "P1",
        "contrasts": {"7": "FLAIR", "a=b": "none"},
        "overwrite": False,
    }
    assert "got '7', expected SERIES=CONTRAST" in refused("import-dicom", tmp_path, "--out", "o", "--contrast", "7")
    assert "no such folder: got nowhere" in refused("import-dicom", "nowhere", "--out", "o")
    target = "hybriduad.exchange.dicom_segmentation.write_dicom_seg"
    words = ["sub-01", tmp_path, "--out", "m.dcm", "--series", "3", "--overwrite"]
    args, kwargs = handed(monkeypatch, target, "dicom-seg", tmp_path, *words)
    assert args == (tmp_path, "sub-01", tmp_path)
    assert kwargs == {"out": Path("m.dcm"), "number": "3", "overwrite": True}
    target = "hybriduad.exchange.filled_cohort.fill_cohort"
    words = ["c.csv", "--out", "o", "--seam-mm", 4, "--split", "test"]
    args, kwargs = handed(monkeypatch, target, "fill", tmp_path, *words)
    assert args == (tmp_path, "c.csv")
    assert kwargs == {"out": Path("o"), "seam_mm": 4.0, "split": "test", "overwrite": False}


@pytest.mark.usefixtures("given")
def test_fit_detector_hands_everything_over(monkeypatch: pytest.MonkeyPatch) -> None:
    args, kwargs = handed(
        monkeypatch,
        "hybriduad.training.fitting.fit_detector",
        "fit-detector",
        "synthetic",
        "c.csv",
        "--out",
        "o",
        "--init",
        "det",
        "--limit",
        7,
    )
    assert args == ("synthetic", "c.csv")
    assert kwargs == {
        "out": Path("o"),
        "overrides": [],
        "reconstructor": None,
        "init": Path("det"),
        "limit": 7,
        "brain": None,
        "device": "auto",
        "cache": None,
        "overwrite": False,
        "data_licence": "not stated",
    }


@pytest.mark.usefixtures("given")
def test_calibrate_hands_everything_over(monkeypatch: pytest.MonkeyPatch) -> None:
    common = ("calibrate", "det", "c.csv", "--out", "o")
    _, kwargs = handed(monkeypatch, "hybriduad.evaluation.calibration.calibrate", *common)
    assert kwargs["rules"] == ["best-dice"]
    args, kwargs = handed(
        monkeypatch,
        "hybriduad.evaluation.calibration.calibrate",
        *common,
        "--rule",
        "false-positives:false_positive_ml=0.5,per=scan",
        "--rule",
        "best-dice",
        "--split",
        "validation",
    )
    assert args == (Path("det"), "c.csv")
    assert kwargs == {
        "out": Path("o"),
        "rules": ["false-positives:false_positive_ml=0.5,per=scan", "best-dice"],
        "split": "validation",
        "brain": None,
        "device": "auto",
        "cache": None,
        "overwrite": False,
    }


def test_the_help_of_calibrate_lists_the_rules_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybriduad.core import plugins

    monkeypatch.setenv("COLUMNS", "300")
    shown = re.sub(r"\s+", " ", CliRunner().invoke(app, ["calibrate", "--help"]).output)
    assert ", ".join(plugins.names("rules")) in shown.replace("- ", "-")  # lines also end at hyphens
    assert set(plugins.names("rules")) >= {"best-dice", "expected-dice", "false-positives"}


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("calibrate", "[default: validation where there are splits, else all]"),
        ("calibrate", "[default: as BUNDLE says]"),
        ("blind-spots", "[default: as BUNDLE says]"),
        ("fit-detector", "[default: as CONFIG or the bundle it starts from says, else auto]"),
    ],
)
def test_the_help_of_a_verb_states_its_own_default(verb: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert said in re.sub(r"\s+", " ", CliRunner().invoke(app, [verb, "--help"]).output)


@pytest.mark.usefixtures("given")
def test_predict_writes_the_default_maps_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybriduad.prediction.files import DEFAULT_MAPS

    common = ("predict", "det", "scan.nii", "--out", "o", "--contrast", "FLAIR", "--rule", "best-dice")
    _, kwargs = handed(monkeypatch, "hybriduad.prediction.cohort.predict_cohort", *common)
    assert (kwargs["maps"], kwargs["contrast"], kwargs["rule"]) == (DEFAULT_MAPS, "FLAIR", "best-dice")
    _, kwargs = handed(monkeypatch, "hybriduad.prediction.cohort.predict_cohort", *common, "--maps", "all")
    assert (kwargs["maps"], kwargs["brain"]) == (["all"], None)
    command = "strip -i {in} -o {out}"
    _, kwargs = handed(monkeypatch, "hybriduad.prediction.cohort.predict_cohort", *common, "--brain", command)
    assert kwargs["brain"] == command


@pytest.mark.usefixtures("given")
def test_evaluate_hands_over_and_exits_3_when_cases_failed_or_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    common = ("evaluate", "predictions", "c.csv", "--out", "o", "--by", "site", "--by", "sex", "--split", "test")
    args, kwargs = handed(monkeypatch, "hybriduad.evaluation.evaluate.evaluate", *common)
    assert args == (Path("predictions"), "c.csv")
    assert kwargs == {
        "out": Path("o"),
        "by": ["site", "sex"],
        "rule": None,
        "split": "test",
        "seed": 0,
        "draws": 2000,
        "allow_leakage": False,
        "overwrite": False,
    }
    outcome = SimpleNamespace(out="o", done=["sub-1"], kept=[], failed={"sub-2": "why"}, missing=[])
    monkeypatch.setattr("hybriduad.evaluation.evaluate.evaluate", lambda *_, **__: outcome)
    result = run(*common)
    assert result.exit_code == 3
    assert result.stdout == "1 done, 0 kept, 1 failed, in o\n"
    assert result.stderr == "failed: sub-2: why\n"
    outcome.failed, outcome.missing = {}, ["sub-3", "sub-4"]
    result = run(*common)
    assert result.exit_code == 3
    assert result.stdout == "1 done, 0 kept, 0 failed, 2 without a prediction, in o\n"
    assert result.stderr == "without a prediction: sub-3, sub-4\n"
    outcome.missing = []
    assert run(*common).exit_code == 0


def test_compare_takes_names_and_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    target = "hybriduad.evaluation.comparison.compare"
    args, kwargs = handed(monkeypatch, target, "compare", "a=x/1", "b=y", "a=x/2", "--out", "o", "--seed", 4)
    assert args == ([("a", ["x/1", "x/2"]), ("b", ["y"])],)
    assert kwargs == {"out": Path("o"), "seed": 4, "draws": 2000}
    assert "got 'folder', expected NAME=FOLDER" in refused("compare", "folder", "--out", "o")


def test_speed_and_demo_hand_everything_over(monkeypatch: pytest.MonkeyPatch) -> None:
    args, kwargs = handed(
        monkeypatch,
        "hybriduad.speed.measurement.measure_speed",
        "speed",
        "restoration",
        "--out",
        "o",
        "--set",
        "seed=1",
    )
    assert args == ("restoration",)
    assert kwargs == {"out": Path("o"), "overrides": ["seed=1"], "device": "auto"}
    args, kwargs = handed(
        monkeypatch, "hybriduad.demo.chain.run_demo", "demo", "--out", "o", "--overwrite", "--seed", 3
    )
    assert args == (Path("o"),)
    assert kwargs == {"seed": 3, "device": "auto", "overwrite": True}


def test_log_goes_to_standard_error_in_plain_lines(tiny_cohort: Path, tiny_reconstructor: Path, tmp_path: Path) -> None:
    scan = tiny_cohort.parent / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    result = run("predict", tiny_reconstructor, scan, "--out", tmp_path / "p", "--verbose")
    assert result.exit_code == 0, result.output
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO sub-01 done in ", result.stderr, flags=re.MULTILINE)
    assert "INFO" not in result.stdout
    assert logging.getLogger("hybriduad").level == logging.DEBUG
    run("predict", tiny_reconstructor, scan, "--out", tmp_path / "p")
    log = logging.getLogger("hybriduad")
    assert (log.level, len(log.handlers)) == (logging.INFO, 1)  # set up once, however often it is called


def test_python_m_is_the_same_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hybriduad", "show", "nope"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("hybriduad: unknown config: got 'nope'")
    assert "Traceback" not in done.stderr


def test_every_public_name_is_there() -> None:
    for name in hybriduad.__all__:
        assert getattr(hybriduad, name) is not None
    assert callable(hybriduad.phantom.write_cohort)
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        hybriduad.phantom.nope  # noqa: B018
    assert set(hybriduad.__all__) <= set(dir(hybriduad))
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        hybriduad.nope  # noqa: B018


def test_model_json_and_record_say_what_was_used(tiny_cohort: Path, tiny_detector: Path, tmp_path: Path) -> None:
    scan = tiny_cohort.parent / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    assert run("predict", tiny_detector, scan, "--out", tmp_path / "p", "--maps", "all").exit_code == 0
    record = json.loads((tmp_path / "p/sub-01/anat/sub-01_desc-anomaly_probseg.json").read_text())
    model = json.loads((tmp_path / "p/model.json").read_text())
    assert record["bundle"] == model["bundle"] == yaml.safe_load(run("show", tiny_detector).stdout)["digest"]
