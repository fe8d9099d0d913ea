"""Both stages end to end on a tiny cohort: files, continuing, killing, and what a bundle tells of its training."""

from __future__ import annotations

import csv
import gzip
import inspect
import json
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file
from tiny import DETECTOR, RECONSTRUCTOR, SPACING_MM, generators, prepared_cases, write_nifti

from hybriduad.cohort.leakage import check_leakage
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.config import files as configs
from hybriduad.core.errors import (
    ConfigError,
    DataError,
    HybridUADError,
    LeakageError,
)
from hybriduad.core.types import Case
from hybriduad.detector.bundle import Bundle, verify
from hybriduad.detector.device import resolve_precision
from hybriduad.detector.loading import load_detector, load_reconstructor
from hybriduad.detector.thresholds import PARTS
from hybriduad.evaluation.calibration import calibrate
from hybriduad.evaluation.evaluate import evaluate
from hybriduad.networks.segmenter import Segmenter
from hybriduad.phantom.subject import make_subject
from hybriduad.prediction.case import predict_case
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.reconstructors.ddpm import Model
from hybriduad.scan.slices import slices_of
from hybriduad.training import fitting, loop
from hybriduad.training.fitting import fit_detector, fit_reconstructor
from hybriduad.training.loop import (
    CHECKPOINT,
    MinuteLines,
    _reached,
    ema_decay,
)
from hybriduad.training.samples import SampleStream
from hybriduad.training.tasks import SegmentationTask

TRAIN = {"steps": 13, "lr": 1.0e-3, "batch": 2, "warmup": 2, "checkpoint_every": 5, "precision": "float32"}
SEGMENTER = {"encoder": "tu-test_resnet", "decoder_channels": [16, 8]}
"""A hundredth of the smallest common encoder: checkpoints are written every few steps."""
MIXED = {"healthy": 1.0, "synthetic": 1.0, "labelled": 2.0}
FILES = {"bundle.json", "config.yaml", "request.json", "statistics.safetensors", "weights.safetensors"}
SHOWN = {"log/version_0/metrics.csv", "pictures/final.png", "pictures/loss.png", "pictures/step-000009.png"}
SECRETS = ("Zebra", "secretset", "MRN-", "90210", "hospital", "tiny_cohort", "sub-0")
"""What must not be found in any bundle: subject, data set, an attribute's values, folders and files."""


@dataclass(frozen=True)
class Fitted:
    """A cohort with names to hide, the configs, and the bundles that were fitted one after the other."""

    cohort: Path
    configs: dict[str, Path]
    reconstructor: Bundle
    synthetic: Bundle
    few: Bundle
    untouched: bool


def write_config(folder: Path, name: str, run: dict[str, Any], **changes: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**run, "train": {**TRAIN, "picture_every": 9}, **changes}))
    return path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def logged(folder: Path) -> list[dict[str, str]]:
    """The rows of the log, those of every sitting one after the other."""
    tables = sorted(folder.glob("log/version_*/metrics.csv"))
    return [row for table in tables for row in csv.DictReader(table.read_text().splitlines())]


def logged_values(folder: Path) -> list[frozenset[tuple[str, str]]]:
    """The rows of the log without what they leave empty."""
    return [frozenset((name, value) for name, value in row.items() if value) for row in logged(folder)]


UNSEEN = ("validation_unseen_auprc", "validation_unseen_map_auprc", "validation_unseen_score_auprc")


def validated(folder: Path) -> dict[int, set[tuple[str, ...]]]:
    """By step, the figures of validation that were logged: loss, AUPRC and, as far as there are, those of anomalies
    that are not trained with. The last step has two, the second of the averaged weights."""
    figures: dict[int, set[tuple[str, ...]]] = {}
    for row in logged(folder):
        if row.get("validation_auprc"):
            loss = row.get("validation_loss") or row.get("validation_model_loss") or ""
            figures.setdefault(int(row["step"]) + 1, set()).add(
                (loss, row["validation_auprc"], *(row[name] for name in UNSEEN if row.get(name)))
            )
    return figures


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


@pytest.fixture(scope="module")
def fitted(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("hospital")
    cases = [
        replace(
            case,
            dataset="secretset",
            subject=f"Zebra{case.subject}",
            attributes={
                **case.attributes,
                "record": f"MRN-{case.subject}",
                "patient_number": f"90210{case.subject}",
            },
        )
        for case in read_cohort(tiny_cohort)
    ]
    write_manifest(cases, folder / "cohort.csv")
    anomalies = [{"name": "perlin"}, {"name": "lesion"}]
    configs = {
        "reconstructor": write_config(folder, "reconstructor", RECONSTRUCTOR),
        "synthetic": write_config(folder, "synthetic", DETECTOR, segmenter=SEGMENTER, anomalies=anomalies),
        "few": write_config(folder, "few", DETECTOR, segmenter=SEGMENTER, mix=MIXED),
    }
    place: dict[str, Any] = {"cohort": folder / "cohort.csv", "device": "cpu", "cache": folder / "cache"}
    before = generators()
    stage1 = fit_reconstructor(configs["reconstructor"], out=folder / "recon", **place)
    synthetic = fit_detector(configs["synthetic"], reconstructor=stage1.folder, out=folder / "det", **place)
    few = fit_detector(configs["few"], init=synthetic.folder, limit=1, out=folder / "few", **place)
    return Fitted(place["cohort"], configs, stage1, synthetic, few, generators() == before)


class TestEndToEnd:
    def test_the_files_of_the_bundles(self, fitted: Fitted) -> None:
        nested = {f"reconstructor/{name}" for name in FILES}
        assert files(fitted.reconstructor.folder) == FILES | SHOWN
        assert files(fitted.synthetic.folder) == FILES | SHOWN | nested
        assert files(fitted.few.folder) == FILES | SHOWN | nested
        around = {path.name for path in fitted.few.folder.parent.iterdir()}
        assert not {name for name in around if name.endswith((".partial", ".ready"))}

    def test_global_generators_are_untouched(self, fitted: Fitted) -> None:
        assert fitted.untouched

    def test_the_log_has_a_row_a_step(self, fitted: Fitted) -> None:
        rows = logged(fitted.few.folder)
        assert [int(row["step"]) for row in rows if row["loss"]] == list(range(TRAIN["steps"]))
        assert {"loss", "cross_entropy", "dice", "false_alarm", "step"} <= set(rows[0])

    def test_training_moves_the_weights_it_should_and_no_others(self, fitted: Fitted) -> None:
        """Published mistake: a frozen network in train mode, whose statistics drift."""
        assert_same_weights(fitted.reconstructor.folder, fitted.synthetic.folder / "reconstructor")
        assert_same_weights(fitted.reconstructor.folder, fitted.few.folder / "reconstructor")
        before, after = weights(fitted.synthetic.folder), weights(fitted.few.folder)
        moved = [float((before[name] - after[name]).abs().max()) for name in before]
        assert min(moved) > 0
        assert max(moved) < 0.1  # continued, not begun anew

    def test_what_the_records_say(self, fitted: Fitted) -> None:
        record = fitted.few.record
        training = record["training"]
        assert (training["cases"], training["subjects"], training["labelled_cases"]) == (3, 3, 1)
        assert training["labelled_subjects"] == 1
        assert training["labelled_slices"] > 0
        assert training["healthy_slices"] > 0
        assert fitted.reconstructor.record["training"]["labelled_cases"] == 0
        assert training["attributes"]["pathology"] == {"glioma": 2, "(others)": 1}
        assert (record["direction"], record["precision"]) == ("axial", "float32")
        assert fitted.few.thresholds.values == {}
        assert training["contrasts"] == {"dropout": 0.2, "lacking_cases": {"FLAIR": 0}}
        assert "Research use only" in record["intended_use"]

    def test_statistics_of_the_training_slices(self, fitted: Fitted) -> None:
        statistics = load_file(fitted.few.folder / "statistics.safetensors")
        assert set(statistics) == {
            "case_distances",
            "feature_mean",
            "feature_covariance",
            "histogram_edges",
            "histogram_map",
            "histogram_probability",
            "histogram_score",
            "histogram_intensity",
            "histogram_asymmetry",
            "quantiles_FLAIR",
        }
        covariance = statistics["feature_covariance"].double()
        assert float(torch.linalg.eigvalsh(covariance).min()) > 0
        assert len({int(statistics[f"histogram_{part}"].sum()) for part in PARTS}) == 1
        assert statistics["histogram_score"].sum() > 1000
        assert (statistics["quantiles_FLAIR"].diff() >= 0).all()

    def test_no_name_and_no_path_in_any_file(self, fitted: Fitted) -> None:
        for bundle in (fitted.reconstructor, fitted.synthetic, fitted.few):
            for name in files(bundle.folder):
                content = (bundle.folder / name).read_bytes()
                assert not [secret for secret in SECRETS if secret.encode() in content], (bundle.folder.name, name)

    def test_a_training_scan_is_known_again_renamed_and_compressed_anew(self, fitted: Fitted, tmp_path: Path) -> None:
        cases = read_cohort(fitted.cohort)
        for bundle in (fitted.reconstructor, fitted.synthetic, fitted.few):
            assert set(bundle.used.values()) == {"fit"}
            for case in cases:
                with pytest.raises(LeakageError, match="role fit"):
                    check_leakage([case], bundle.used)
        copy = tmp_path / "other.nii.gz"
        copy.write_bytes(gzip.compress(gzip.decompress(cases[0].images["FLAIR"].read_bytes()), 1))
        with pytest.raises(LeakageError, match="same voxels"):
            check_leakage([replace(cases[0], dataset="else", subject="9", images={"FLAIR": copy})], fitted.few.used)
        scan = nib.load(copy)
        nib.save(nib.Nifti1Image(np.asanyarray(scan.dataobj) + 1.0, scan.affine), copy)
        check_leakage([replace(cases[0], dataset="else", subject="9", images={"FLAIR": copy})], fitted.few.used)

    def test_predictions_of_the_result(self, fitted: Fitted, tmp_path: Path) -> None:
        outcome = predict_cohort(fitted.few.folder, fitted.cohort, out=tmp_path / "out", maps=("all",), device="cpu")
        assert (sorted(outcome.done), outcome.failed) == ([f"sub-Zebra{n}" for n in ("01", "02", "03")], {})


def with_broken_t1w(cohort: Path, folder: Path, **names: str) -> Path:
    """The manifest of the same cases, the T1w of the first one cut off in the middle."""
    first, *others = read_cohort(cohort)
    broken = folder / "broken_T1w.nii.gz"
    broken.write_bytes(first.images["T1w"].read_bytes()[:2000])
    first = replace(first, images={**first.images, "T1w": broken})
    write_manifest([replace(case, **names) for case in (first, *others)], folder / "broken.csv")
    return folder / "broken.csv"


def test_a_contrast_that_the_bundle_does_not_use_need_not_be_readable(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ran to its end and then failed, at every retry."""
    monkeypatch.setattr(fitting, "run_training", lambda *_, **__: None)
    broken = with_broken_t1w(fitted.cohort, tmp_path)
    bundle = fit_reconstructor(fitted.configs["reconstructor"], broken, out=tmp_path / "out", device="cpu")
    assert (bundle.record["training"]["cases"], bundle.record["training"]["failed_cases"]) == (3, 0)
    whole = fitted.reconstructor.used
    assert bundle.used.items() < whole.items()
    assert len(bundle.used) == len(whole) - 1  # of nine, three subjects and six scans
    renamed = with_broken_t1w(fitted.cohort, tmp_path, dataset="else")
    with pytest.raises(LeakageError, match=r"3 of 3 cases.*same voxels"):
        calibrate(bundle.folder, renamed, out=tmp_path / "leaked", device="cpu")


def unseen_subject(folder: Path, number: int) -> Path:
    """The manifest of one more phantom with a glioma."""
    phantom = make_subject(7, number, pathology="glioma", contrasts=("FLAIR",), spacing_mm=SPACING_MM)
    parts = {"FLAIR": phantom.images["FLAIR"], "brain": phantom.brain, "lesion": phantom.lesion}
    paths = {
        n: write_nifti(folder / f"{number}_{n}.nii.gz", v.astype(np.float32), phantom.affine) for n, v in parts.items()
    }
    images, masks = {"FLAIR": paths.pop("FLAIR")}, paths
    write_manifest([Case("unseen", str(number), images, **masks, health="lesion")], folder / f"{number}.csv")
    return folder / f"{number}.csv"


def test_calibrated_predicted_and_evaluated(fitted: Fitted, tmp_path: Path) -> None:
    validation, test = (unseen_subject(tmp_path, number) for number in (4, 5))
    with pytest.raises(LeakageError):
        calibrate(fitted.few.folder, fitted.cohort, out=tmp_path / "leaked", device="cpu")
    site = calibrate(fitted.few.folder, validation, out=tmp_path / "site", device="cpu")
    assert set(site.used.values()) == {"fit", "calibrate"}
    assert site.generation == fitted.few.generation  # a calibration is no training
    assert set(fitted.few.used) < set(site.used)
    predict_cohort(site.folder, test, out=tmp_path / "predictions", maps=("all",), device="cpu")
    result = evaluate(tmp_path / "predictions", test, out=tmp_path / "scores", draws=20)
    assert not result.failed
    assert (tmp_path / "scores" / "summary.md").read_text()
    predict_cohort(site.folder, validation, out=tmp_path / "seen", maps=("all",), device="cpu")
    with pytest.raises(LeakageError, match="role calibrate"):
        evaluate(tmp_path / "seen", validation, out=tmp_path / "no", draws=20)


class TestValidation:
    """Figures while a training runs: shown, and of no consequence."""

    def test_loss_and_auprc_are_logged_each_quarter_every_so_many_steps_and_at_the_end(self, fitted: Fitted) -> None:
        for bundle in (fitted.reconstructor, fitted.synthetic, fitted.few):
            figures = validated(bundle.folder)
            assert sorted(figures) == [3, 6, 9, TRAIN["steps"]]
            curve = loop.validation_curve(bundle.folder)
            assert list(curve) == sorted(figures)
            assert all(
                f"{value}" in {rank for entry in figures[step] for rank in entry} for step, value in curve.items()
            )
            for loss, *ranks in (row for entry in figures.values() for row in entry):
                assert 0 < float(loss) < 100
                # The unseen AUPRC too, and of a detector beside a reconstructor those of the map and the score.
                assert len(ranks) == (2 if bundle is fitted.reconstructor else 4)
                assert all(0 < float(rank) < 1 for rank in ranks)
            assert figures[9] != figures[TRAIN["steps"]]  # by the weights as they were then
        height, width, _ = matplotlib.image.imread(fitted.few.folder / "pictures" / "loss.png").shape
        assert width > 1.5 * height  # two panels, losses and AUPRC

    def test_weights_of_a_stopped_second_stage_are_the_same_however_often_it_is_shown(
        self, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Continued, with other figures on the way, and where nothing was shown at all."""
        place: dict[str, Any] = {"init": fitted.synthetic.folder, "limit": 1, "device": "cpu"}
        with monkeypatch.context() as patch:
            patch.setattr(loop.Progress, "_show", lambda *_: None)
            patch.setattr(loop.Progress, "_judge", lambda *_: None)
            silent = fit_detector(fitted.configs["few"], fitted.cohort, out=tmp_path / "silent", **place)
        assert not validated(silent.folder)
        assert_same_weights(silent.folder, fitted.few.folder)
        place |= {"out": tmp_path / "often", "overrides": ["train.picture_every=4"]}
        with monkeypatch.context() as patch:
            patch.setattr(SampleStream, "__getitem__", failing_at(8))
            with pytest.raises(Stopped):
                fit_detector(fitted.configs["few"], fitted.cohort, **place)
        assert _reached(tmp_path / "often.partial" / CHECKPOINT) == 5
        assert sorted(validated(tmp_path / "often.partial")) == [3, 4, 6, 8]
        often = fit_detector(fitted.configs["few"], fitted.cohort, **place)
        assert not (tmp_path / "often.partial").exists()
        assert_same_weights(often.folder, fitted.few.folder)
        figures = validated(often.folder)
        assert sorted(figures) == [3, 4, 6, 8, 9, 12, 13]
        assert {len(entry) for entry in figures.values()} == {1}  # steps 6 and 8 in both sittings: the same figures
        assert figures[13] == validated(fitted.few.folder)[13]

    def test_validation_cases_teach_nothing_and_do_not_count_as_used(
        self, fitted: Fitted, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second, third = read_cohort(fitted.cohort)
        held = replace(second, split="validation")
        cases = [replace(first, split="train"), held, replace(third, split="train")]
        write_manifest(cases, tmp_path / "split.csv")
        config, bundles, shorter = fitted.configs["reconstructor"], [], ["train.steps=3"]
        write_manifest([cases[0], cases[2]], tmp_path / "without.csv")
        for name, said in (("split", "1 of 1 validation cases"), ("without", "training cases, as none of 0")):
            with caplog.at_level("INFO", logger="hybriduad"):
                caplog.clear()
                place: dict[str, Any] = {"out": tmp_path / name, "device": "cpu", "overrides": shorter}
                bundles.append(fit_reconstructor(config, tmp_path / f"{name}.csv", **place))
            assert f"validation on 32 painted slices of {said}" in caplog.text
            assert "unseen: painted by atrophy-cavity and intensity-bias" in caplog.text
        assert_same_weights(bundles[0].folder, bundles[1].folder)
        assert bundles[0].used == bundles[1].used
        assert validated(bundles[0].folder) != validated(bundles[1].folder)
        check_leakage([held], bundles[0].used)


class TestDescent:
    """What a detector keeps of the one that it was started from."""

    def child(self, fitted: Fitted, init: Path, out: Path, *changes: str) -> Bundle:
        overrides = ["train.steps=0", *changes]
        return fit_detector(
            fitted.configs["synthetic"], fitted.cohort, init=init, out=out, device="cpu", overrides=overrides
        )

    def test_the_residual_is_that_of_the_parent_unto_the_grandchildren(self, fitted: Fitted, tmp_path: Path) -> None:
        """It fell back to that of stage 1."""
        assert fitted.synthetic.run.residual == fitted.reconstructor.run.residual  # resolved
        child = self.child(fitted, fitted.synthetic.folder, tmp_path / "1", "residual={kind: positive}")
        grandchild = self.child(fitted, child.folder, tmp_path / "2")
        last = self.child(fitted, grandchild.folder, tmp_path / "3")
        for bundle in (child, grandchild, last):
            assert bundle.run.residual.kind == "positive"
            assert load_detector(bundle.folder, "cpu").residual.kind == "positive"
        assert child.run.residual.median_mm == 11.5

    def test_an_older_parent_that_leaves_it_to_its_reconstructor(
        self, fitted: Fitted, tiny_detector: Path, tmp_path: Path
    ) -> None:
        assert verify(tiny_detector).run.residual is None
        config = write_config(tmp_path, "plain", {k: v for k, v in DETECTOR.items() if k != "segmenter"})
        child = fit_detector(
            config, fitted.cohort, init=tiny_detector, out=tmp_path / "o", device="cpu", overrides=["train.steps=0"]
        )
        assert child.run.residual == verify(tiny_detector).reconstructor.run.residual

    def test_generations_are_counted(self, fitted: Fitted, tmp_path: Path) -> None:
        assert [bundle.generation for bundle in (fitted.reconstructor, fitted.synthetic, fitted.few)] == [1, 1, 2]
        third = self.child(fitted, fitted.few.folder, tmp_path / "3")
        assert (third.generation, third.record["generation"]) == (3, 3)

    @pytest.mark.parametrize(("name", "generation"), [("reconstructor", 1), ("synthetic", 1), ("few", 2)])
    def test_older_bundles_count_by_what_they_are(self, fitted: Fitted, name: str, generation: int) -> None:
        bundle = getattr(fitted, name)
        record = {key: value for key, value in bundle.record.items() if key != "generation"}
        assert replace(bundle, record=record).generation == generation


def test_every_argument_of_a_stage_is_stated_with_its_type() -> None:
    """They were collected in a mapping of anything, which neither a type checker nor an editor reads."""
    place = {"out", "overrides", "brain", "device", "cache", "overwrite", "data_licence"}
    for stage, further in ((fit_reconstructor, set()), (fit_detector, {"reconstructor", "init", "limit"})):
        parameters = inspect.signature(stage).parameters
        assert set(parameters) == {"config", "cohort"} | place | further
        assert {parameter.kind.name for parameter in parameters.values()} == {"POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"}
        assert not [name for name, hint in get_type_hints(stage).items() if hint is Any]


class TestNoSteps:
    def test_the_same_networks_under_another_score(self, fitted: Fitted, tmp_path: Path) -> None:
        changes = ["train.steps=0", "residual.kind=absolute", "fusion={form: sum, weight: 2.0}", "mirror=true"]
        place: dict[str, Any] = {"out": tmp_path / "out", "device": "cpu", "overrides": changes}
        child = fit_detector(fitted.configs["synthetic"], fitted.cohort, init=fitted.synthetic.folder, **place)
        assert_same_weights(fitted.synthetic.folder, child.folder)
        before, after = (load_detector(bundle.folder, "cpu") for bundle in (fitted.synthetic, child))
        assert (before.residual.kind, after.residual.kind) == ("ssim", "absolute")
        assert (after.fusion.form, after.fusion.weight, after.mirror) == ("sum", 2.0, True)
        assert (child.folder / "pictures" / "final.png").is_file()
        assert child.record["training"]["contrasts"] == fitted.synthetic.record["training"]["contrasts"]
        tables = [load_file(bundle.folder / "statistics.safetensors") for bundle in (fitted.synthetic, child)]
        assert any(not torch.equal(tables[0][name], tables[1][name]) for name in tables[0])  # they hold the score

    def test_nothing_to_keep(self, fitted: Fitted, tmp_path: Path) -> None:
        place: dict[str, Any] = {"out": tmp_path / "out", "device": "cpu", "overrides": ["train.steps=0"]}
        with pytest.raises(ConfigError, match=r"no training at all.*--init"):
            fit_reconstructor(fitted.configs["reconstructor"], fitted.cohort, **place)
        with pytest.raises(ConfigError, match=r"no training at all.*--init"):
            fit_detector(fitted.configs["synthetic"], fitted.cohort, reconstructor=fitted.reconstructor.folder, **place)


class TestContinuing:
    def test_the_same_request_returns_the_finished_bundle(
        self, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fitting, "run_training", refuse)
        place: dict[str, Any] = {"out": fitted.reconstructor.folder, "device": "cpu"}
        again = fit_reconstructor(fitted.configs["reconstructor"], fitted.cohort, **place)
        assert again.digest == fitted.reconstructor.digest
        few = fit_detector(
            fitted.configs["few"], fitted.cohort, init=fitted.synthetic.folder, limit=1, out=fitted.few.folder
        )
        assert few.digest == fitted.few.digest

    def test_another_request_in_the_same_place_is_refused(self, fitted: Fitted, tiny_cohort: Path) -> None:
        place: dict[str, Any] = {"out": fitted.reconstructor.folder, "device": "cpu"}
        config = fitted.configs["reconstructor"]
        with pytest.raises(ConfigError, match=r"got config.seed 0 there and 1 now; .*--overwrite"):
            fit_reconstructor(config, fitted.cohort, overrides=["seed=1"], **place)
        with pytest.raises(ConfigError, match=r"got another cohort; .*--overwrite"):
            fit_reconstructor(config, tiny_cohort, **place)
        with pytest.raises(ConfigError, match=r"got limit 1 there and 2 now; .*--overwrite"):
            fit_detector(
                fitted.configs["few"], fitted.cohort, init=fitted.synthetic.folder, limit=2, out=fitted.few.folder
            )

    def test_a_changed_mask_is_another_request(self, fitted: Fitted, tmp_path: Path) -> None:
        cases = read_cohort(fitted.cohort)
        mask = nib.load(cases[0].lesion)
        nib.save(nib.Nifti1Image(np.zeros(mask.shape, np.int16), mask.affine), tmp_path / cases[0].lesion.name)
        changed = [replace(cases[0], lesion=tmp_path / cases[0].lesion.name), *cases[1:]]
        write_manifest(changed, tmp_path / "cohort.csv")
        with pytest.raises(ConfigError, match="got another cohort"):
            fit_reconstructor(fitted.configs["reconstructor"], tmp_path / "cohort.csv", out=fitted.reconstructor.folder)

    def test_a_mask_edited_in_place_its_labels_and_the_reference_are_another_request(
        self, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_: Any, **__: Any) -> None:
            raise Stopped

        def fit(*cases: Case) -> None:
            write_manifest(cases, tmp_path / "cohort.csv")
            fit_reconstructor(
                fitted.configs["reconstructor"],
                tmp_path / "cohort.csv",
                out=tmp_path / "out",
                device="cpu",
                cache=fitted.cohort.parent / "cache",
            )

        monkeypatch.setattr(fitting, "run_training", stop)
        first, *others = read_cohort(fitted.cohort)
        mask = np.asarray(nib.load(first.lesion).dataobj).astype(np.uint8)
        affine = nib.load(first.lesion).affine
        edited = replace(first, lesion=write_nifti(tmp_path / "lesion.nii", mask, affine))
        with pytest.raises(Stopped):
            fit(edited, *others)
        with pytest.raises(Stopped):  # the same again: it continues
            fit(edited, *others)
        labels = {**first.attributes, "lesion_labels": "1"}
        for changed in (replace(edited, attributes=labels), replace(edited, reference="FLAIR")):
            with pytest.raises(ConfigError, match="got another cohort"):
                fit(changed, *others)
        write_nifti(tmp_path / "lesion.nii", np.roll(mask, 1, axis=0), affine)
        with pytest.raises(ConfigError, match="got another cohort"):
            fit(edited, *others)

    def test_overwrite_replaces_a_bundle_and_nothing_else(
        self, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fitting, "run_training", lambda *_, **__: None)
        config, cohort, out = fitted.configs["reconstructor"], fitted.cohort, tmp_path / "out"
        first = fit_reconstructor(config, cohort, out=out, device="cpu")
        second = fit_reconstructor(config, cohort, out=out, device="cpu", overwrite=True, overrides=["seed=1"])
        assert second.record["seed"] == 1
        assert second.digest != first.digest
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "thesis.txt").write_text("x")
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match=r"something else|no bundle"):
                fit_reconstructor(config, cohort, out=tmp_path / "precious", overwrite=overwrite)
        assert (tmp_path / "precious" / "thesis.txt").exists()

    def test_overwriting_keeps_the_old_bundle_until_there_is_a_new_one_and_continues(
        self, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fitting, "run_training", lambda *_, **__: None)
        out = tmp_path / "few"
        shutil.copytree(fitted.few.folder, out)
        arguments: dict[str, Any] = {"init": fitted.synthetic.folder, "out": out, "device": "cpu", "overwrite": True}
        with pytest.raises(DataError, match="too few labelled patients"):
            fit_detector(fitted.configs["few"], fitted.cohort, limit=700, **arguments)
        assert verify(out).digest == fitted.few.digest

        def stop(_task: Any, _stream: Any, _train: Any, folder: Path, **_: Any) -> None:
            seen.append((folder / CHECKPOINT).exists())
            (folder / CHECKPOINT).write_bytes(b"x")
            raise Stopped

        seen: list[bool] = []
        monkeypatch.setattr(fitting, "run_training", stop)
        for _ in range(2):
            with pytest.raises(Stopped):
                fit_detector(fitted.configs["few"], fitted.cohort, limit=2, **arguments)
        assert seen == [False, True], "called again it continues"
        assert verify(out).digest == fitted.few.digest

    @pytest.mark.parametrize("before", ["figures", "picture", "statistics"])
    def test_stopped_after_the_last_step(
        self, before: str, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last checkpoint is of the last step, and the bundle was not written yet.

        The last figures and the final picture were missing, and of the losses those since the log was last written.
        """
        config, out = fitted.configs["reconstructor"], tmp_path / "out"
        overrides = [f"train.checkpoint_every={TRAIN['steps']}"]  # which changes no weight

        draw = fitting.draw_samples

        def stop(*_: Any, **__: Any) -> None:
            raise Stopped

        def stop_at_the_end(path: Path, *drawn: Any) -> None:
            stop() if path.stem == loop.FINAL else draw(path, *drawn)

        with monkeypatch.context() as patch:
            stops = {
                "figures": (loop.Progress, "on_train_end", stop),
                "picture": (fitting, "draw_samples", stop_at_the_end),
                "statistics": (fitting, "reference_statistics", stop),
            }
            patch.setattr(*stops[before])
            patch.setattr(CSVLogger, "finalize", lambda *_: None)  # killed, it has no time to write what it holds
            with pytest.raises(Stopped):
                fit_reconstructor(config, fitted.cohort, out=out, device="cpu", overrides=overrides)
        assert _reached(tmp_path / "out.partial" / CHECKPOINT) == TRAIN["steps"]
        with monkeypatch.context() as patch:
            patch.setattr(SampleStream, "__getitem__", refuse)
            stopped = fit_reconstructor(config, fitted.cohort, out=out, device="cpu", overrides=overrides)
        straight = fitted.reconstructor
        rows, expected = logged_values(stopped.folder), logged_values(straight.folder)
        assert set(rows) == set(expected)
        assert len(rows) - len(expected) == (before == "picture")  # the last figures, logged in both sittings
        assert {name for name in files(stopped.folder) if "pictures" in name} == {n for n in SHOWN if "pictures" in n}
        assert_same_weights(stopped.folder, straight.folder)
        assert (stopped.folder / "statistics.safetensors").read_bytes() == (
            straight.folder / "statistics.safetensors"
        ).read_bytes()

    @pytest.mark.parametrize("what", ["loss", "gradient"])
    def test_what_is_not_finite_keeps_the_last_good_checkpoint(
        self, what: str, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good, calls = Model.loss, []

        def spoilt(self: Model, *arguments: Any) -> dict[str, torch.Tensor]:
            calls.append(1)
            losses = good(self, *arguments)
            if len(calls) == 8:
                nothing = losses["loss"] - losses["loss"]  # whose root has a value, 0, and no slope
                losses["loss"] = losses["loss"] * float("nan") if what == "loss" else losses["loss"] + nothing.sqrt()
            return losses

        config, out = fitted.configs["reconstructor"], tmp_path / "out"
        with monkeypatch.context() as patch:
            patch.setattr(Model, "loss", spoilt)
            with pytest.raises(DataError, match=rf"{what} is not finite.*nan.*last good checkpoint.*\.$"):
                fit_reconstructor(config, fitted.cohort, out=out, device="cpu")
        assert _reached(tmp_path / "out.partial" / CHECKPOINT) == 5
        assert list((tmp_path / "out.partial" / "tensorboard").glob("events.*"))
        again = fit_reconstructor(config, fitted.cohort, out=out, device="cpu")
        assert_same_weights(again.folder, fitted.reconstructor.folder)

    def test_workers_change_nothing_and_the_figures_of_validation_are_the_same_once_more(
        self, fitted: Fitted, tmp_path: Path
    ) -> None:
        bundle = fit_reconstructor(
            fitted.configs["reconstructor"],
            fitted.cohort,
            out=tmp_path / "out",
            device="cpu",
            overrides=["train.workers=1"],
        )
        assert_same_weights(bundle.folder, fitted.reconstructor.folder)
        assert validated(bundle.folder) == validated(fitted.reconstructor.folder)


SCRIPT = """
import os, signal, sys
from hybriduad.training.fitting import fit_reconstructor
from hybriduad.training.samples import SampleStream
config, cohort, out, step = sys.argv[1:]
item = SampleStream.__getitem__
def kill(self, index):
    if index == int(step):
        os.kill(os.getpid(), signal.SIGKILL)
    return item(self, index)
SampleStream.__getitem__ = kill
fit_reconstructor(config, cohort, out=out, device="cpu")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_in_the_middle_of_an_epoch_and_continued_the_weights_are_bit_identical(
    fitted: Fitted, tmp_path: Path
) -> None:
    """Killed in a process of its own, continued in this one, which also trained without a stop."""
    config, out = fitted.configs["reconstructor"], tmp_path / "killed"
    command = [sys.executable, "-c", SCRIPT, str(config), str(fitted.cohort), str(out), "8"]
    assert subprocess.run(command, timeout=600, capture_output=True).returncode == -signal.SIGKILL
    assert not out.exists()
    assert _reached(tmp_path / "killed.partial" / CHECKPOINT) == 5
    killed, whole = fit_reconstructor(config, fitted.cohort, out=out, device="cpu"), fitted.reconstructor
    assert_same_weights(killed.folder, whole.folder)
    checksums = [verify(bundle.folder).record["checksums"]["weights.safetensors"] for bundle in (killed, whole)]
    assert checksums[0] == checksums[1]


def test_no_two_stages_draw_the_same_samples(fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    class Noted(SampleStream):
        def __init__(self, *arguments: Any, **told: Any) -> None:
            super().__init__(*arguments, **told)
            seeds.append(self.seed)

    # Of an unchanged seed, again and again: a third training drew what the second had drawn.
    third = fit_detector(
        fitted.configs["few"],
        fitted.cohort,
        init=fitted.few.folder,
        out=tmp_path / "third",
        device="cpu",
        overrides=["train.steps=0"],
    )
    monkeypatch.setattr(fitting, "SampleStream", Noted)
    monkeypatch.setattr(fitting, "run_training", refuse)
    place: dict[str, Any] = {"out": tmp_path / "out", "device": "cpu", "overwrite": True}
    stages: list[Callable[[], Bundle]] = [
        lambda: fit_reconstructor(fitted.configs["reconstructor"], fitted.cohort, **place),
        lambda: fit_detector(
            fitted.configs["synthetic"], fitted.cohort, reconstructor=fitted.reconstructor.folder, **place
        ),
        lambda: fit_detector(fitted.configs["few"], fitted.cohort, init=fitted.synthetic.folder, **place),
        lambda: fit_detector(fitted.configs["few"], fitted.cohort, init=fitted.few.folder, **place),
        lambda: fit_detector(fitted.configs["few"], fitted.cohort, init=third.folder, **place),
    ]
    for stage in stages:
        with pytest.raises(AssertionError):
            stage()
    assert len(set(seeds)) == 5


def test_kept_weights_keep_their_noise_and_precision(fitted: Fitted, tmp_path: Path) -> None:
    """The same networks give the same maps, whatever seed and precision the config of another fusion states."""
    changes = ["train.steps=0", "seed=9", "train.precision=bfloat16", "fusion.weight=2"]
    parent, config = fitted.synthetic, fitted.configs["synthetic"]
    kept = fit_detector(
        config, fitted.cohort, init=parent.folder, out=tmp_path / "kept", device="cpu", overrides=changes
    )
    assert (parent.record["seed"], parent.record["precision"]) == (0, "float32")
    assert (kept.record["seed"], kept.record["precision"]) == (0, "float32")
    assert kept.run.seed == 9
    case = read_cohort(fitted.cohort)[0]
    before, after = (predict_case(load_detector(bundle.folder, "cpu"), case) for bundle in (parent, kept))
    np.testing.assert_array_equal(after.map, before.map)
    np.testing.assert_array_equal(after.probability, before.probability)
    assert not np.array_equal(after.score, before.score)


@pytest.mark.parametrize("flips", ["stage 1", "nowhere", "everywhere"])
def test_mirror_over_networks_that_were_trained_without_flips(
    flips: str, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fitting, "run_training", lambda *_, **__: None)
    place: dict[str, Any] = {"device": "cpu"}
    stage1 = fitted.reconstructor
    if flips == "nowhere":
        changes = ["augmentation.flip=0"]
        config = fitted.configs["reconstructor"]
        stage1 = fit_reconstructor(config, fitted.cohort, out=tmp_path / "recon", overrides=changes, **place)
    changes = [] if flips == "everywhere" else ["augmentation.flip=0"]
    config = fitted.configs["synthetic"]
    first = fit_detector(
        config,
        fitted.cohort,
        reconstructor=stage1.folder,
        out=tmp_path / "one",
        overrides=[*changes, "mirror=false"],
        **place,
    )
    assert "mirrored slices" not in caplog.text
    monkeypatch.setattr(fitting, "_fit", lambda *_, **__: None)
    for mirror in ("false", "true"):
        fit_detector(
            config,
            fitted.cohort,
            init=first.folder,
            out=tmp_path / "two",
            overrides=["train.steps=0", f"mirror={mirror}"],
            **place,
        )
        said = caplog.text.count("mirrored slices will be judged by networks that learnt from none")
        assert said == (mirror == "true" and flips != "everywhere")
    if flips != "everywhere":
        nested = [first.folder / "reconstructor"] if flips == "nowhere" else []
        assert f"was 0 in {' and '.join(map(str, [*nested, first.folder]))};" in caplog.text


def test_a_training_of_two_contrasts_says_how_lesions_look_on_each(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[SampleStream] = []
    monkeypatch.setattr(fitting, "run_training", lambda task, stream, *_, **__: taken.append(stream) or refuse())
    changes = ["anatomy.contrasts=[FLAIR, T1w]", "mix.synthetic=1", "anomalies=[{name: lesion, bright: 0.9}]"]
    config, place = fitted.configs["reconstructor"], {"out": tmp_path / "out", "device": "cpu"}
    with caplog.at_level(logging.INFO), pytest.raises(AssertionError):
        fit_reconstructor(config, fitted.cohort, overrides=changes, **place)
    ((painted, _),) = taken[0].anomalies
    assert painted.inverted == (False, True)
    assert caplog.text.count("lesion is painted on FLAIR, T1w with {'inverted': (False, True)}") == 1


def test_the_frozen_reconstructor_follows_the_task_to_its_device(fitted: Fitted) -> None:
    run = configs.load(fitted.configs["synthetic"], [], kind="detector")
    frozen = load_reconstructor(fitted.reconstructor)
    task = SegmentationTask(run, Segmenter(run.segmenter, 1), frozen)
    task.to("meta")
    task.on_fit_start()
    assert {weight.device.type for weight in frozen.parameters()} == {"meta"}


def test_encoders_that_drop_paths_draw_nothing_from_the_global_generator(
    tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["segmenter={encoder: efficientnet-b0, inputs: [image], decoder_channels: [8, 8, 8, 8]}"]
    run = configs.load("synthetic-image", changes, kind="detector")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        segmenter = Segmenter(run.segmenter, 1).train()
    task = SegmentationTask(run, segmenter, None)
    losses: list[float] = []
    monkeypatch.setattr(task, "_step", lambda _, loss: losses.append(float(loss)))
    monkeypatch.setattr(task, "log_dict", lambda *_, **__: None)
    batch = slices_of(prepared_cases(tiny_cohort)[0], [4, 5], seed=3)
    before = generators()
    for keys in ([1, 2], [1, 2], [3, 4]):
        task.training_step(replace(batch, keys=torch.tensor(keys)), 0)
    assert generators() == before
    assert losses[0] == losses[1] != losses[2]  # it does drop, by the samples' keys


class TestSegmenterAlone:
    def test_a_detector_without_a_reconstructor(self, fitted: Fitted, tmp_path: Path) -> None:
        run = {**DETECTOR, "segmenter": {**SEGMENTER, "inputs": ["image"]}, "anatomy": RECONSTRUCTOR["anatomy"]}
        config = write_config(tmp_path, "alone", run)
        bundle = fit_detector(config, fitted.cohort, out=tmp_path / "out", device="cpu")
        assert files(bundle.folder) == FILES | SHOWN
        assert bundle.reconstructor is None
        detector = load_detector(bundle.folder, device="cpu")
        assert detector.reconstructor is None
        assert json.loads((bundle.folder / "bundle.json").read_text())["anatomy"]["size"] == 32


class TestBadRequests:
    @pytest.fixture
    def fit(self, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bundle]:
        monkeypatch.setattr(fitting, "run_training", refuse)
        return lambda config, **more: fit_detector(
            fitted.configs[config], fitted.cohort, out=tmp_path / "out", device="cpu", **more
        )

    def test_a_parent_of_the_wrong_kind(self, fit: Callable[..., Bundle], fitted: Fitted) -> None:
        with pytest.raises(ConfigError, match="not a reconstructor"):
            fit("synthetic", reconstructor=fitted.synthetic.folder)
        with pytest.raises(ConfigError, match="not a detector"):
            fit("synthetic", init=fitted.reconstructor.folder)
        with pytest.raises(ConfigError, match="both a reconstructor and a detector"):
            fit("synthetic", init=fitted.synthetic.folder, reconstructor=fitted.reconstructor.folder)

    def test_anatomy_is_stated_once(self, fit: Callable[..., Bundle], fitted: Fitted) -> None:
        with pytest.raises(ConfigError, match="no anatomy"):
            fit("synthetic")
        with pytest.raises(ConfigError, match="anatomy stated twice"):
            fit("synthetic", reconstructor=fitted.reconstructor.folder, overrides=["anatomy={contrasts: [FLAIR]}"])

    def test_a_segmenter_that_needs_a_reconstructor(self, fit: Callable[..., Bundle]) -> None:
        with pytest.raises(ConfigError, match="without a reconstruct"):
            fit("synthetic", overrides=["anatomy={contrasts: [FLAIR], size: 32}"])

    def test_labels_and_limits(self, fit: Callable[..., Bundle], fitted: Fitted, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="limit without labelled slices"):
            fit("synthetic", reconstructor=fitted.reconstructor.folder, limit=2)
        alone = ["anatomy={contrasts: [FLAIR], size: 32}", "segmenter.inputs=[image]", "training_levels=all"]
        with pytest.raises(ConfigError, match=r"levels for a segmenter that sees no reconstruction.*\.$"):
            fit("synthetic", overrides=alone)
        with pytest.raises(DataError, match="too few labelled patients"):
            fit("few", init=fitted.synthetic.folder, limit=3)
        with pytest.raises(ConfigError, match="labelled slices in stage 1"):
            fit_reconstructor(
                fitted.configs["reconstructor"], fitted.cohort, out=tmp_path / "out", overrides=["mix.labelled=0.5"]
            )

    def test_a_segmenter_that_is_not_that_of_the_parent(self, fit: Callable[..., Bundle], fitted: Fitted) -> None:
        with pytest.raises(ConfigError, match=r"two different segmenters .*--init brings its own"):
            fit("synthetic", init=fitted.synthetic.folder, overrides=["segmenter.layout=stacked"])
        with pytest.raises(AssertionError, match="a training was started"):  # the same one may be stated
            fit("synthetic", init=fitted.synthetic.folder)

    def test_a_refused_config_does_not_stand_in_the_way_of_the_corrected_one(
        self, fit: Callable[..., Bundle], fitted: Fitted
    ) -> None:
        for wrong, said in (
            ("[]", "no anomaly generator"),
            ("[{name: transplant}]", "without labelled slices"),
            ("[{name: lesion, bright: [0.9, 0.1]}]", "wrong number of contrasts"),
        ):
            with pytest.raises(HybridUADError, match=said):
                fit("synthetic", reconstructor=fitted.reconstructor.folder, overrides=[f"anomalies={wrong}"])
        with pytest.raises(AssertionError, match="a training was started"):
            fit("synthetic", reconstructor=fitted.reconstructor.folder)

    def test_a_config_of_the_other_kind(self, fitted: Fitted, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="wrong kind"):
            fit_reconstructor(fitted.configs["few"], fitted.cohort, out=tmp_path / "out")


def test_the_average_forgets_the_start() -> None:
    for steps in (100, 375, 3000, 100_000):
        assert ema_decay(steps) ** (steps / 4) < 0.1
    assert ema_decay(5) == 0.0


def multiply_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processor be one that multiplies bfloat16, and nothing keep it from that."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for variable in ("DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(variable, raising=False)


class TestPrecision:
    @pytest.mark.parametrize(
        ("able", "resolved"),
        [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")],
    )
    def test_auto_is_what_the_processor_is_fast_at(
        self, able: dict[str, bool], resolved: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        multiply_bfloat16(monkeypatch)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
        assert resolve_precision("auto", torch.device("cpu")) == resolved

    @pytest.mark.parametrize(
        ("capability", "variable", "limit", "resolved"),
        [
            ("AVX512", "DNNL_MAX_CPU_ISA", "", "bfloat16"),
            ("AVX512", "DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX", "bfloat16"),
            ("AVX512", "DNNL_MAX_CPU_ISA", "avx512_core_bf16", "bfloat16"),
            ("AVX512", "DNNL_MAX_CPU_ISA", "AVX512_CORE_VNNI", "float32"),
            ("AVX512", "ONEDNN_MAX_CPU_ISA", "avx2", "float32"),
            ("AVX2", "DNNL_MAX_CPU_ISA", "", "float32"),
            ("DEFAULT", "DNNL_MAX_CPU_ISA", "", "float32"),
        ],
    )
    def test_auto_is_float32_where_bfloat16_is_emulated(
        self, capability: str, variable: str, limit: str, resolved: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """0.4 GFLOP/s against 137 on a processor that could, told by its environment not to."""
        multiply_bfloat16(monkeypatch)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setenv(variable, limit)
        assert resolve_precision("auto", torch.device("cpu")) == resolved

    @pytest.mark.parametrize(("able", "resolved"), [(True, "bfloat16"), (False, "float32")])
    def test_auto_on_a_gpu(self, able: bool, resolved: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
        assert resolve_precision("auto", torch.device("cuda")) == resolved

    @pytest.mark.parametrize("stated", ["float32", "bfloat16"])
    def test_what_is_stated_stays(self, stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": stated == "float32"})
        assert resolve_precision(stated, torch.device("cpu")) == stated

    def test_the_bundle_says_what_auto_was_when_it_was_fitted(
        self, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        multiply_bfloat16(monkeypatch)
        changes = ["train.precision=auto", "train.steps=1"]
        place: dict[str, Any] = {"out": tmp_path / "out", "device": "cpu", "overrides": changes}
        bundle = fit_reconstructor(fitted.configs["reconstructor"], fitted.cohort, **place)
        assert json.loads((bundle.folder / "bundle.json").read_text())["precision"] == "bfloat16"
        assert load_detector(bundle.folder, "cpu").precision == "bfloat16"
        # Elsewhere bfloat16 would be emulated, for hours.
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
        detector = load_detector(bundle.folder, "cpu")
        assert detector.precision == "float32"
        assert predict_case(detector, read_cohort(fitted.cohort)[0]).notes["precision"] == "float32"


def test_without_a_terminal_there_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten steps of 25 seconds: lines after steps 3, 6 and 9 and at the end, with the loss and what is left."""
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    progress = SimpleNamespace(batch_idx=-1)
    trainer = SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_loop=progress), callback_metrics={"loss": torch.tensor(0.5)}
    )
    lines = MinuteLines(10)
    with caplog.at_level("INFO", logger="hybriduad.training.loop"):
        lines.on_train_start(trainer, None)  # type: ignore[arg-type]
        for step in range(10):
            progress.batch_idx = step
            lines.on_train_batch_end(trainer, None)  # type: ignore[arg-type]
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in said] == [f"step {step} of 10" for step in (3, 6, 9, 10)]
    assert said[0] == "step 3 of 10, loss 0.5000, 25.00 s a step, 2.9 minutes left"


class Stopped(Exception):
    """What ends a training in these tests."""


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("a training was started")


def failing_at(step: int) -> Callable[[SampleStream, int], Any]:
    item = SampleStream.__getitem__

    def get(self: SampleStream, index: int) -> Any:
        if index == step:
            raise Stopped
        return item(self, index)

    return get
