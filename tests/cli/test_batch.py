"""``predict`` over cohorts, and the BIDS App: options, exit codes, logs."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import typer.main
from bids_valid import bids_issues
from reported import data_of, words_of
from rich.console import Console
from verbs import run

from hybriduad import __version__
from hybriduad.cli import bids as bids_app
from hybriduad.cli import log
from hybriduad.cli.app import app
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.core.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def data_set(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw BIDS: sub-01 with two sessions, of which the second has two acquisitions; sub-02 truncated."""
    root = tmp_path_factory.mktemp("bids") / "raw"
    scans = [case.images["FLAIR"] for case in read_cohort(tiny_cohort)]
    names = ("sub-01/ses-1/anat/sub-01_ses-1_FLAIR", "sub-01/ses-2/anat/sub-01_ses-2_acq-fast_FLAIR")
    for name in (*names, "sub-01/ses-2/anat/sub-01_ses-2_acq-slow_FLAIR", "sub-02/ses-1/anat/sub-02_ses-1_FLAIR"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = nib.load(scans[0])
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, root / f"{name}.nii.gz")
    broken = root / f"{'sub-02/ses-1/anat/sub-02_ses-1_FLAIR'}.nii.gz"
    broken.write_bytes(broken.read_bytes()[:3000])
    description = {"Name": "two people", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "README").write_text("Two phantoms.\n" * 10)
    return root


class TestPredict:
    def test_a_shard_with_a_log_for_machines(self, tiny_cohort: Path, tiny_detector: Path, tmp_path: Path) -> None:
        arguments = ("predict", tiny_detector, tiny_cohort, "--out", tmp_path / "out", "--device", "cpu")
        planned = run(*arguments, "--shard", "3/3", "--dry-run")
        assert planned.exit_code == 0, planned.output
        assert planned.stdout.startswith("sub-03: to do\n1 to do, 0 done, 0 failed, 0 wrong")
        assert not (tmp_path / "out").exists()
        result = run(*arguments, "--shard", "3/3", "--log-json", tmp_path / "logs" / "3.jsonl")
        assert result.exit_code == 0, result.output
        assert "1 done, 0 kept, 0 failed" in result.stdout
        (entry,) = [json.loads(line) for line in (tmp_path / "logs" / "3.jsonl").read_text().splitlines()]
        assert entry["message"].startswith("sub-03 done in ")
        assert (entry["level"], entry["result"]["case"], entry["result"]["status"]) == ("INFO", "sub-03", "done")
        assert entry["result"]["seconds"]["network"] > 0
        assert log.log.handlers == [handler for handler in log.log.handlers if not hasattr(handler, "baseFilename")]

    def test_the_log_may_lie_in_the_folder_and_nothing_else(
        self, tiny_cohort: Path, tiny_detector: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        arguments = ("predict", tiny_detector, tiny_cohort, "--out", out, "--device", "cpu", "--shard", "3/3")
        arguments = (*arguments, "--log-json", out / "logs" / "3.jsonl")
        (out / "logs").mkdir(parents=True)
        (out / "logs" / "3.jsonl").touch()
        (out / ".DS_Store").touch()
        (out / "thesis.txt").touch()
        for more in (("--dry-run",), ()):
            result = run(*arguments, *more)
            assert (result.exit_code, "output folder holds something else" in result.stderr) == (2, True), more
        (out / "thesis.txt").unlink()
        assert run(*arguments, "--dry-run").exit_code == 0
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert "sub-03 done in" in (out / "logs" / "3.jsonl").read_text()

    def test_one_command_from_scans_to_pages_also_when_a_case_failed(
        self, tiny_cohort: Path, tiny_detector: Path, tmp_path: Path
    ) -> None:
        case, _, other = read_cohort(tiny_cohort)
        broken = tmp_path / "sub-03_FLAIR.nii.gz"
        broken.write_bytes(other.images["FLAIR"].read_bytes()[:3000])
        write_manifest([case, replace(other, images={"FLAIR": broken}, lesion=None)], tmp_path / "cohort.csv")
        out, pages = tmp_path / "out", tmp_path / "pages"
        arguments = ("predict", tiny_detector, tmp_path / "cohort.csv", "--out", out, "--device", "cpu")
        assert run(*arguments, "--report", pages, "--dry-run").exit_code == 0
        assert not pages.exists()
        result = run(*arguments, "--report", pages)
        assert result.exit_code == 3, result.output
        said = [f"1 done, 0 kept, 1 failed, in {out}", f"1 pages, 0 failed, in {pages / 'index.html'}"]
        assert result.stdout.splitlines() == said
        assert {path.name for path in pages.iterdir()} == {"index.html", "sub-01.html"}
        assert {"scan", "score"} <= data_of(pages / "sub-01.html")["layers"].keys()
        assert "sub-03 damaged or truncated file" in words_of(pages / "index.html")
        again = run(*arguments, "--report", pages)
        assert "0 done, 1 kept, 1 failed" in again.stdout, "the pages are no strangers to a further run"

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (("--report", "pages", "--shard", "1/2"), "--report in a shard, which would write the pages of other"),
            (("--report", "out"), "pages in a folder that holds the predictions: got out; name a folder of their own"),
            (("--report", "."), "pages in a folder that holds the predictions: got .;"),
            (("--report", "thesis"), "output folder holds something else in thesis"),
            (("--report", "thesis", "--dry-run"), "output folder holds something else in thesis"),
        ],
    )
    def test_pages_that_cannot_be_written_are_said_before_anything_is_predicted(
        self,
        options: tuple[str, ...],
        sentence: str,
        tiny_cohort: Path,
        tiny_detector: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.html").touch()
        result = run("predict", tiny_detector, tiny_cohort, "--out", "out", *options)
        assert (result.exit_code, result.stderr.startswith(f"hybriduad: {sentence}")) == (2, True), result.stderr
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (("--shard", "2"), "bad shard: got '2', expected I/N, as 1/8"),
            (("--shard", "0/2"), "no such shard: got 0/2"),
            (("--engine", "local", "--nprocs", 2), "several workers in one process"),
            (("--engine", "processes", "--address", "auto"), "address without a cluster"),
        ],
    )
    def test_a_wrong_option_is_one_sentence(
        self, options: tuple[Any, ...], sentence: str, tiny_cohort: Path, tiny_detector: Path, tmp_path: Path
    ) -> None:
        result = run("predict", tiny_detector, tiny_cohort, "--out", tmp_path / "out", *options)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"hybriduad: {sentence}")

    def test_a_bar_only_in_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with log.bar() as watch:
            assert watch is None
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        text = io.StringIO()
        handler = logging.NullHandler()
        handler.console = Console(file=text, force_terminal=True, width=100)  # type: ignore[attr-defined]
        monkeypatch.setattr(log.log, "handlers", [handler])
        with log.bar() as watch:
            assert watch is not None
            watch(None, 3, 12)
        assert "3/12" in text.getvalue()


def app_run(*arguments: object) -> int:
    """The exit code."""
    try:
        bids_app.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


class TestBidsApp:
    def test_both_levels(
        self, data_set: Path, tiny_detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, chosen = tmp_path / "out", tmp_path / "filter.json"
        chosen.write_text(json.dumps({"flair": {"acquisition": [None, "slow"]}}))
        common = ("--bundle", tiny_detector, "--device", "cpu", "--bids-filter-file", chosen, "-w", tmp_path / "work")
        common += ("--maps", "uncertainty", "--brain", "estimate")
        alone = ("--participant-label", "sub-01", "--session_label", "1", "2")
        assert app_run(data_set, out, "participant", *common, *alone) == 0
        assert "2 done, 0 kept, 0 failed" in capsys.readouterr().out
        records = sorted(path.name for path in out.rglob("*_desc-anomaly_probseg.json"))
        assert records == [f"sub-01_ses-{number}_desc-anomaly_probseg.json" for number in (1, 2)]
        assert list((tmp_path / "work").iterdir())
        assert len(list(out.rglob("*_desc-uncertainty_probseg.nii.gz"))) == 2
        assert json.loads((out / "model.json").read_text())["request"]["brain"] == "estimate"
        assert app_run(data_set, out, "participant", *common) == 3
        said = capsys.readouterr()
        assert "0 done, 2 kept, 1 failed" in said.out
        assert said.err.splitlines()[-1].startswith("failed: sub-02_ses-1: damaged or truncated file")
        (out / "desc-anomaly_cases.tsv").unlink()
        assert app_run(data_set, out, "group", "--bids-filter-file", chosen) == 0
        assert "3 cases in" in capsys.readouterr().out
        pages = {path.name for path in (out / "report").iterdir()}
        assert pages == {"index.html", "sub-01_ses-1.html", "sub-01_ses-2.html"}
        assert "sub-02_ses-1" in (out / "report" / "index.html").read_text()
        rows = [line.split("\t")[:5] for line in (out / "desc-anomaly_cases.tsv").read_text().splitlines()[1:]]
        assert rows[1] == ["sub-01_ses-2", "sub-01", "ses-2", "n/a", "done"]
        assert rows[2] == ["sub-02_ses-1", "sub-02", "ses-1", "n/a", "failed"]
        assert bids_issues(out)[0] == []  # the failed case, the tables and the pages included

    def test_it_has_every_option_of_predict_but_those_that_bids_says_otherwise(self) -> None:
        verb = typer.main.get_command(app).commands["predict"]
        otherwise = {"--out", "--split", "--contrast", "--cache", "--help"}  # OUT_DIR, labels, filter file, -w
        known = {name for action in bids_app._parser()._actions for name in action.option_strings}
        assert {name for parameter in verb.params for name in parameter.opts if name[0] == "-"} - otherwise <= known

    def test_a_shard_with_a_log_for_machines_and_pages_of_all(
        self, data_set: Path, tiny_detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, chosen = tmp_path / "out", tmp_path / "filter.json"
        chosen.write_text(json.dumps({"flair": {"acquisition": [None, "slow"]}}))
        common = (data_set, out, "participant", "--bundle", tiny_detector, "--device", "cpu", "--skip-bids-validation")
        common = (*common, "--bids-filter-file", chosen)
        shard = (*common, "--shard", "2/3", "--engine", "local", "--log-json", out / "logs" / "2.jsonl")
        assert app_run(*shard, "--dry-run") == 0
        assert capsys.readouterr().out.startswith("sub-01_ses-2: to do\n1 to do, 0 done, 0 failed, 0 wrong")
        assert not out.exists()
        assert app_run(*shard) == 0
        assert "1 done, 0 kept, 0 failed" in capsys.readouterr().out
        (entry,) = [json.loads(line) for line in (out / "logs" / "2.jsonl").read_text().splitlines()]
        assert (entry["result"]["case"], entry["result"]["status"]) == ("sub-01_ses-2", "done")
        assert app_run(*shard, "--report") == 2
        assert "hybriduad-bids: --report in a shard" in capsys.readouterr().err
        assert app_run(*common, "--report", "--participant-label", "01", "--session-label", "1") == 0
        assert f"2 pages, 0 failed, in {out / 'report' / 'index.html'}" in capsys.readouterr().out
        assert {"scan", "score"} <= data_of(out / "report" / "sub-01_ses-2.html")["layers"].keys()

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (("--shard", "1:3"), "bad shard: got '1:3', expected I/N, as 1/8"),
            (("--engine", "local", "--nprocs", "2"), "several workers in one process"),
            (("--engine", "processes", "--address", "HOST:6379"), "address without a cluster: got HOST:6379"),
        ],
    )
    def test_a_wrong_option_is_one_sentence(
        self,
        options: tuple[str, ...],
        sentence: str,
        data_set: Path,
        tiny_detector: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        alone = ("--participant-label", "01", "--session-label", "1", "--skip-bids-validation")
        arguments = (data_set, tmp_path / "out", "participant", "--bundle", tiny_detector, *alone)
        assert app_run(*arguments, *options) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"hybriduad-bids: {sentence}")

    def test_a_case_that_cannot_be_read_stops_no_other(
        self, data_set: Path, tiny_detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """sub-01_ses-2 has two FLAIR, and of sub-02 one is a link to content that was not fetched; what the table of
        participants says cannot be used, and is not needed."""
        root, out = Path(shutil.copytree(data_set, tmp_path / "raw")), tmp_path / "out"
        (root / "participants.tsv").write_text("participant_id\thealth\nsub-01\twell\n")
        (root / "sub-02/ses-1/anat/sub-02_ses-1_FLAIR.nii.gz").unlink()
        (root / "sub-02/ses-1/anat/sub-02_ses-1_FLAIR.nii.gz").symlink_to(root / ".git/annex/objects/x")
        common = ("--bundle", tiny_detector, "--device", "cpu", "--skip-bids-validation")
        one = ("--participant-label", "01", "--session-label", "1")
        assert app_run(root, out, "participant", *common, *one) == 0
        assert "1 done, 0 kept, 0 failed" in capsys.readouterr().out
        planned = run("predict", tiny_detector, root, "--out", out, "--dry-run")
        assert planned.exit_code == 3
        assert "sub-01_ses-1: done" in planned.stdout
        assert "sub-01_ses-2: wrong: several files for FLAIR of one case" in planned.stdout
        assert "sub-02_ses-1: wrong: link to nothing in" in planned.stdout
        assert app_run(root, out, "participant", *common) == 3
        said = capsys.readouterr()
        assert "0 done, 1 kept, 2 failed" in said.out
        failed = said.err.splitlines()[-2:]
        assert failed[0].startswith("failed: sub-01_ses-2: several files for FLAIR of one case: got ")
        assert failed[0].endswith("or in a manifest CSV.")
        assert failed[1].startswith("failed: sub-02_ses-1: link to nothing in")
        (tmp_path / "filter.json").write_text('{"flair": {"acquisition": [null, "slow"]}}')
        again = ("--participant-label", "01", "--bids-filter-file", tmp_path / "filter.json")
        assert app_run(root, out, "participant", *common, *again) == 0

    def test_a_data_set_that_is_not_valid_is_refused_unless_told(self, data_set: Path, tmp_path: Path) -> None:
        assert bids_issues(data_set)[0] == []
        bids_app.validate(data_set)
        wrong = Path(shutil.copytree(data_set, tmp_path / "wrong"))
        (wrong / "sub-01/ses-1/anat/scan.nii.gz").write_bytes(b"")
        with pytest.raises(DataError, match=r"the BIDS validator finds errors.*--skip-bids-validation"):
            bids_app.validate(wrong)

    def test_the_validator_before_this_one_numbers_its_codes(
        self, data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = {"issues": {"errors": [{"code": 1, "key": "NOT_INCLUDED", "severity": "error"}], "warnings": []}}
        fake = tmp_path / "bids-validator"
        fake.write_text(f"#!{sys.executable}\nprint({json.dumps(said)!r})\nraise SystemExit(1)\n")
        fake.chmod(0o755)
        monkeypatch.setattr(bids_app, "VALIDATORS", (str(fake),))
        with pytest.raises(DataError, match=r"the BIDS validator finds errors in .*: got NOT_INCLUDED;"):
            bids_app.validate(data_set)

    def test_no_validator_is_said(
        self, data_set: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(bids_app, "VALIDATORS", ("no-such-validator",))
        bids_app.validate(data_set)
        assert "not validated: no no-such-validator here" in caplog.text

    def test_an_atlas_is_handed_on(
        self, data_set: Path, tiny_detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = (data_set, tmp_path / "out", "participant", "--bundle", tiny_detector, "--skip-bids-validation")
        (tmp_path / "filter.json").write_text(json.dumps({"flair": {"acquisition": [None, "slow"]}}))
        arguments = (*arguments, "--bids-filter-file", tmp_path / "filter.json")
        assert app_run(*arguments, "--atlas", tmp_path / "labels.nii.gz") == 2
        assert "atlas for a bundle that does not register scans" in capsys.readouterr().err
        assert app_run(*arguments, "--atlas-names", tmp_path / "names.tsv") == 2
        assert "names of labels without an atlas" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("nowhere", "o", "participant"), "no such data set: got nowhere"),
            (("raw", "o", "participant"), "participant level without a model"),
            (("raw", "raw", "participant", "--bundle", "b"), "output folder is the data set itself"),
            (("raw", "o", "group"), "no predictions in o"),
            (("raw", "o", "group", "--dry-run"), "option of the participant level alone: got --shard or --dry-run"),
            (("raw", "o", "group", "--shard", "1/2"), "option of the participant level alone"),
            (
                ("raw", "o", "participant", "--bundle", "b", "--skip-bids-validation", "--participant-label", "7"),
                "no such subject in the data set: got ['7'], expected some of ['01', '02']",
            ),
            (
                ("raw", "o", "participant", "--bundle", "b", "--skip-bids-validation", "--session-label", "1", "9"),
                "no such session in the data set: got ['9']",
            ),
        ],
    )
    def test_what_can_be_mended_is_one_sentence(
        self,
        arguments: tuple[str, ...],
        sentence: str,
        data_set: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        root = Path(shutil.copytree(data_set, tmp_path / "raw"))
        (root / "sub-01/ses-2/anat/sub-01_ses-2_acq-fast_FLAIR.nii.gz").unlink()  # else two of a kind
        monkeypatch.chdir(tmp_path)
        assert app_run(*arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"hybriduad-bids: {sentence}")
        assert said.count("\n") == 1

    def test_filters(self, tmp_path: Path) -> None:
        path = tmp_path / "filter.json"
        assert bids_app.file_filter(None) is None
        path.write_text(
            json.dumps({"t1w": {"session": "01", "acquisition": None, "suffix": "T1w"}, "flair": {"run": 2}})
        )
        wanted = bids_app.file_filter(path)
        assert wanted is not None
        assert wanted({"sub": "1", "ses": "01"}, "T1w")
        assert not wanted({"sub": "1", "ses": "02"}, "T1w")
        assert not wanted({"sub": "1", "ses": "01", "acq": "fast"}, "T1w")
        assert wanted({"sub": "1", "run": "2"}, "FLAIR")
        assert wanted({"sub": "1", "run": "02"}, "FLAIR")  # a number in BIDS
        assert not wanted({"sub": "1", "run": "20"}, "FLAIR")
        assert not wanted({"sub": "1", "ses": "1"}, "T1w")  # none
        assert wanted({"sub": "1"}, "T2w")
        for content, sentence in (("[1]", "bad filter file"), ('{"t1w": {"colour": "red"}}', "unknown entities")):
            path.write_text(content)
            with pytest.raises(ConfigError, match=sentence):
                bids_app.file_filter(path)

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert app_run("--version") == 0
        assert capsys.readouterr().out.strip() == f"hybriduad-bids {__version__}"
