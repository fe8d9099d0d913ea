"""Cohorts that are stopped, sharded, planned and told: what is done, what failed and why, in tables and logs."""

from __future__ import annotations

import csv
import json
import mmap
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import write_nifti

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import ConfigError
from hybriduad.core.processes import peak_mb, resident_mb
from hybriduad.core.stopwatch import Stopwatch, step
from hybriduad.core.types import Case
from hybriduad.detector.bundle import verify
from hybriduad.detector.loading import load_detector
from hybriduad.detector.memory import in_batches, lacks_memory
from hybriduad.prediction import failures, work
from hybriduad.prediction.case import predict_case
from hybriduad.prediction.cohort import cases_of, predict_cohort
from hybriduad.prediction.files import MODEL, begin_folder
from hybriduad.prediction.group import COLUMNS, write_group_tables
from hybriduad.prediction.plan import plan_cohort
from hybriduad.scan import template_space


@pytest.fixture(scope="module")
def cases(tiny_cohort: Path) -> list[Case]:
    return read_cohort(tiny_cohort)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = tmp_path_factory.mktemp("broken") / "sub-09_FLAIR.nii.gz"
    write_nifti(path, np.full((34, 41, 22), np.nan, dtype=np.float32), np.diag([5.0, 5.0, 8.0, 1.0]))
    return Case("tiny", "09", {"FLAIR": path})


@pytest.fixture(scope="module")
def done(tiny_detector: Path, cases: list[Case], broken: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases done and one failed; read-only."""
    out = tmp_path_factory.mktemp("done") / "out"
    predict_cohort(tiny_detector, [*cases[:2], broken], out=out, device="cpu")
    return out


def table(path: Path) -> dict[str, dict[str, str]]:
    return {row["case"]: row for row in csv.DictReader(path.read_text().splitlines(), delimiter="\t")}


class TestFailures:
    def test_one_that_lies_in_the_files_waits_for_other_files_or_the_flag(
        self, broken: Case, cases: list[Case], tiny_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = Path(shutil.copy(broken.images["FLAIR"], tmp_path / "scan.nii.gz"))
        case, out = replace(broken, images={"FLAIR": path}), tmp_path / "out"
        arguments: dict[str, Any] = {"out": out, "device": "cpu"}
        tried = []
        predict = work.predict_case
        monkeypatch.setattr(work, "predict_case", lambda *a, **k: tried.append(1) or predict(*a, **k))
        assert "NaN or infinite voxels" in predict_cohort(tiny_detector, [case], **arguments).failed["sub-09"]
        again = predict_cohort(tiny_detector, [case], **arguments).failed["sub-09"]
        assert "NaN or infinite voxels" in again
        assert "--retry-failed tries it again" in again
        assert len(tried) == 1
        predict_cohort(tiny_detector, [case], **arguments, retry_failed=True)
        assert len(tried) == 2
        with monkeypatch.context() as patch:
            patch.setattr(failures, "__version__", "another")
            assert "already" not in predict_cohort(tiny_detector, [case], **arguments).failed["sub-09"]
        shutil.copy(cases[0].images["FLAIR"], path)
        assert predict_cohort(tiny_detector, [case], **arguments).done == ["sub-09"]
        assert (out / "failures.tsv").read_text() == "case\treason\ttime\tversion\n"
        assert table(out / "desc-anomaly_cases.tsv")["sub-09"]["status"] == "done"

    def test_one_for_want_of_memory_is_tried_again(
        self, cases: list[Case], tiny_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hungry(*_: Any, **__: Any) -> Any:
            raise MemoryError("out of memory for a single slice")

        with monkeypatch.context() as patch:
            patch.setattr(work, "predict_case", hungry)
            outcome = predict_cohort(tiny_detector, cases[:1], out=tmp_path / "out", device="cpu")
        assert outcome.failed == {"sub-01": "out of memory for a single slice"}
        assert predict_cohort(tiny_detector, cases[:1], out=tmp_path / "out", device="cpu").done == ["sub-01"]


class TestGroupTable:
    def test_a_row_a_case_with_what_its_files_say(self, done: Path) -> None:
        rows = table(done / "desc-anomaly_cases.tsv")
        assert list(rows) == ["sub-01", "sub-02", "sub-09"]
        assert list(rows["sub-01"]) == list(COLUMNS) == list(json.loads((done / "desc-anomaly_cases.json").read_text()))
        record = json.loads((done / "sub-01/anat/sub-01_desc-anomaly_probseg.json").read_text())
        lesions = table_of_lesions(done / "sub-01/anat/sub-01_desc-anomaly_lesions.tsv")
        row = rows["sub-01"]
        assert (row["status"], row["participant_id"], row["session_id"]) == ("done", "sub-01", "n/a")
        assert int(row["lesions"]) == len(lesions) > 0
        assert float(row["volume_ml"]) == pytest.approx(sum(lesions), abs=1e-3)
        assert float(row["peak_score"]) == pytest.approx(record["peak_score"])
        assert float(row["brain_ml"]) == record["notes"]["brain"]["volume_ml"]
        assert (row["threshold"], row["rule"], row["flags"]) == ("0.6", "best-dice", "n/a")
        assert row["brain_method"] == record["notes"]["brain"]["method"] == "given mask"
        assert float(row["mean_uncertainty"]) == record["mean_uncertainty"] > 0
        assert (row["scan_p"], row["out_of_distribution"], row["out_of_distribution_limit"]) == ("n/a",) * 3
        failed = rows["sub-09"]
        assert (failed["status"], failed["lesions"]) == ("failed", "n/a")
        assert failed["reason"] == table(done / "failures.tsv")["sub-09"]["reason"]

    def test_a_reason_with_a_file_name_that_is_no_utf_8(self, tmp_path: Path) -> None:
        reason = f"damaged file in {os.fsdecode(b'Jos' + bytes([0xE9]))}."
        failures.remember(tmp_path, Case("tiny", "09", {}), reason, lies_in_files=False)
        (row,) = write_group_tables(tmp_path)
        assert row["reason"] == reason
        for name in ("desc-anomaly_cases.tsv", "failures.tsv"):
            assert table(tmp_path / name)["sub-09"]["reason"] == "damaged file in Jos\\udce9."

    def test_flags_of_quality_and_the_predicted_dice_are_listed(self, done: Path, tmp_path: Path) -> None:
        out = Path(shutil.copytree(done, tmp_path / "out"))
        path = out / "sub-02/anat/sub-02_desc-anomaly_probseg.json"
        record = json.loads(path.read_text())
        dice = {"predicted_dice": {"value": 0.7, "interval": [0.4, 0.9], "coverage": 0.8, "cases": 8}, "scan_p": 0.25}
        flags = {"flags": [{"name": "motion"}, {"name": "ghost"}]}
        far = {"out_of_distribution": {"distance": 4.5, "limit": 4.0}}
        notes = record["notes"] | {"lacking": {"FLAIR": 0.2}}
        path.write_text(json.dumps(record | {"quality": flags | far, "confidence": dice, "notes": notes}))
        (out / "sub-01/anat/sub-01_desc-anomaly_probseg.json").write_text("half")
        rows = write_group_tables(out)
        flagged = "motion,ghost,unlike the training scans,contrast does not cover the brain"
        assert [(row["case"], row["flags"]) for row in rows] == [("sub-02", flagged), ("sub-09", "n/a")]
        stated = ("scan_p", "out_of_distribution", "out_of_distribution_limit")
        assert [tuple(row[column] for column in stated) for row in rows] == [("0.25", "4.5", "4.0"), ("n/a",) * 3]
        columns = ("predicted_dice", "predicted_dice_low", "predicted_dice_high")
        assert [tuple(row[column] for column in columns) for row in rows] == [("0.7", "0.4", "0.9"), ("n/a",) * 3]


def table_of_lesions(path: Path) -> list[float]:
    return [float(line.split("\t")[1]) for line in path.read_text().splitlines()[1:]]


class TestShards:
    def test_they_are_every_case_once(self, cases: list[Case], broken: Case) -> None:
        cohort = [broken, *cases]
        shards = [[case.name for case in cases_of(cohort, None, None, (number, 3))] for number in (1, 2, 3)]
        assert shards == [["sub-01", "sub-09"], ["sub-02"], ["sub-03"]]
        assert cases_of(list(reversed(cohort)), None, None, (1, 3))[0].name == "sub-01"

    def test_they_fill_a_folder_at_the_same_time(
        self, cases: list[Case], broken: Case, done: Path, tiny_detector: Path, tmp_path: Path
    ) -> None:
        cohort, out, errors = [*cases[:2], broken], tmp_path / "out", []

        def shard(number: int) -> None:
            try:
                predict_cohort(tiny_detector, cohort, out=out, device="cpu", shard=(number, 3))
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=shard, args=(number,)) for number in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        names = {path.relative_to(done) for path in done.rglob("*")}
        assert {path.relative_to(out) for path in out.rglob("*")} == names
        for name in (MODEL, "desc-anomaly_cases.tsv", ".bidsignore"):
            assert (out / name).read_bytes() == (done / name).read_bytes()

    def test_a_folder_begun_twice_is_of_the_first(self, tiny_detector: Path, tmp_path: Path) -> None:
        model, out = verify(tiny_detector), tmp_path / "out"
        out.mkdir()
        (out / f".{MODEL}.12.34").write_text("what another run is writing")
        begin_folder(out, model, ("score",), None, False)
        first = (out / MODEL).stat().st_ino
        (out / "README.md").unlink()  # the other run was stopped before it wrote this
        (out / ".bidsignore").write_text("mine.txt\n")
        begin_folder(out, model, ("score",), None, False)
        assert ((out / MODEL).stat().st_ino, (out / "README.md").is_file()) == (first, True)
        assert (out / ".bidsignore").read_text().startswith("mine.txt\nmodel.json\n")
        with pytest.raises(ConfigError, match=r"another maps|maps .* there"):
            begin_folder(out, model, ("score", "mask"), None, False)

    def test_predictions_of_another_registration_are_not_continued(
        self, tiny_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        native = verify(tiny_detector)
        content = {**native.record["anatomy"], "space": "MNI152NLin2009aSym", "spacing_mm": 6.0}
        registered = replace(native, record={**native.record, "anatomy": content})
        for model in (native, registered):
            begin_folder(tmp_path / model.anatomy.space, model, ("score",), None, False)
        monkeypatch.setattr(template_space, "FORMAT", template_space.FORMAT + 1)
        begin_folder(tmp_path / native.anatomy.space, native, ("score",), None, False)
        with pytest.raises(ConfigError, match="registration"):
            begin_folder(tmp_path / registered.anatomy.space, registered, ("score",), None, False)

    def test_what_a_killed_run_left_half_written_is_removed_when_it_is_old(
        self, done: Path, cases: list[Case], broken: Case, tiny_detector: Path, tmp_path: Path
    ) -> None:
        out = Path(shutil.copytree(done, tmp_path / "out"))
        old, young = (out / "sub-01/anat" / f".sub-01_x.nii.gz.77.{thread}" for thread in (1, 2))
        for path in (old, young):
            path.write_text("half")
        os.utime(old, (time.time() - 3600,) * 2)
        assert predict_cohort(tiny_detector, cases[:1], out=out, device="cpu").kept == ["sub-01"]
        assert (old.exists(), young.exists()) == (False, True)


class TestPlan:
    def test_it_names_what_is_left_and_what_is_wrong_and_writes_nothing(
        self, done: Path, cases: list[Case], broken: Case, tiny_detector: Path, tmp_path: Path
    ) -> None:
        gone = replace(cases[0], subject="20", images={"FLAIR": tmp_path / "gone.nii.gz"}, brain=None)
        other = replace(cases[0], subject="21", images={"T2w": cases[0].images["FLAIR"]}, brain=None)
        flat = write_nifti(tmp_path / "flat.nii.gz", np.ones((34, 41, 22), np.float32), np.diag([8.0, 5.0, 5.0, 1.0]))
        turned = replace(cases[0], subject="22", images={"FLAIR": flat}, brain=None)
        masked = replace(cases[0], subject="23", brain=flat)
        before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
        plan = plan_cohort(tiny_detector, [*cases, broken, gone, other, turned, masked], out=done, device="cpu")
        assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before
        assert (plan.of("done"), plan.of("to do"), plan.of("failed")) == (["sub-01", "sub-02"], ["sub-03"], ["sub-09"])
        assert plan.of("wrong") == ["sub-20", "sub-21", "sub-22", "sub-23"]
        why = [plan.cases[name][1] for name in plan.of("wrong")]
        needles = ("missing file", "no contrast that the bundle", "another acquisition direction", "brain mask on none")
        assert all(needle in reason for needle, reason in zip(needles, why, strict=True))
        assert plan.wrong
        text = str(plan)
        assert "1 to do, 2 done, 1 failed, 4 wrong" in text
        assert "16 blank slices" in text  # two cases are too few to tell how long one takes

    def test_an_estimate_of_the_cases_that_are_done(
        self, done: Path, cases: list[Case], tiny_detector: Path, tmp_path: Path
    ) -> None:
        out = Path(shutil.copytree(done, tmp_path / "out"))
        for number, seconds in enumerate((2.0, 5.0, 90.0)):
            path = out / f"sub-{number}/anat/sub-{number}_desc-anomaly_probseg.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"seconds": seconds, "memory_mb": 1000.0}))
        for name in ("sub-01", "sub-02"):
            (out / name / "anat" / f"{name}_desc-anomaly_probseg.json").unlink()
        plan = plan_cohort(tiny_detector, cases, out=out, device="cpu", nprocs=2)
        assert (plan.estimate.seconds, plan.estimate.memory_mb, plan.workers) == (5.0, 1000.0, 2)
        assert "5.0 s a case, 0.00 h in all with 2 workers, 1000 MB each; as the 3 cases" in str(plan)
        with pytest.raises(ConfigError, match="other predictions"):
            plan_cohort(tiny_detector, cases, out=out, maps=("score",), device="cpu")


class TestMemory:
    @pytest.mark.parametrize(
        ("error", "wanting"),
        [
            (torch.OutOfMemoryError("CUDA out of memory."), True),
            (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
            (MemoryError(), True),
            (RuntimeError("shapes differ"), False),
            (ValueError("out of memory"), False),
        ],
    )
    def test_what_is_want_of_memory(self, error: Exception, wanting: bool) -> None:
        assert lacks_memory(error) == wanting

    def test_batches_are_halved_and_nothing_is_done_twice(self) -> None:
        asked: list[list[int]] = []

        def work_on(chunk: Any) -> list[int]:
            asked.append(list(chunk))
            if len(chunk) > 3 or chunk == [4, 5]:
                raise RuntimeError("out of memory")
            return list(chunk)

        results, batch = in_batches(range(7), 8, lambda chunk: work_on(list(chunk)))
        assert ([number for part in results for number in part], batch) == (list(range(7)), 1)
        assert [len(chunk) for chunk in asked] == [7, 4, 2, 2, 2, 1, 1, 1]
        with pytest.raises(MemoryError, match="single slice"):
            in_batches([1], 1, lambda _: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(RuntimeError, match="shapes"):
            in_batches([1], 1, lambda _: (_ for _ in ()).throw(RuntimeError("shapes differ")))

    def test_a_prediction_with_little_memory_is_the_same(
        self, cases: list[Case], tiny_detector: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        detector = load_detector(tiny_detector, "cpu")
        plenty = predict_case(detector, cases[0])
        assert "slices_at_once" not in plenty.notes
        maps = detector.slice_maps

        def hungry(batch: Any) -> Any:
            if len(batch) > 5:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")
            return maps(batch)

        monkeypatch.setattr(detector, "slice_maps", hungry)
        little = predict_case(detector, cases[0])
        assert little.notes["slices_at_once"] == 4
        np.testing.assert_allclose(little.score, plenty.score, atol=1e-5)

    def test_memory_that_is_held(self) -> None:
        before = resident_mb()
        held = mmap.mmap(-1, 40_000_000)  # fresh pages: an allocator may hand out what is resident already
        held.write(bytes(40_000_000))
        assert resident_mb() - before == pytest.approx(40, abs=4)
        assert peak_mb() >= resident_mb() * 0.99
        held.close()


def test_a_stopwatch_counts_no_step_twice() -> None:
    watch = Stopwatch()
    with step("unheard"):
        pass
    with watch.listening(), step("outer"):
        time.sleep(0.03)
        with step("inner"):
            time.sleep(0.05)
    assert set(watch.seconds) == {"outer", "inner"}
    assert watch.seconds["inner"] >= 0.05
    assert 0.03 <= watch.seconds["outer"] < 0.05 + watch.seconds["inner"] - 0.02
