"""Speed: what it counts and times against closed forms, and a whole one on a tiny network."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import DETECTOR, RECONSTRUCTOR

from hybriduad.cohort.manifest import read_manifest
from hybriduad.config import files as configs
from hybriduad.config.files import parse
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.core.types import Batch
from hybriduad.reconstructors._base import Reconstructor
from hybriduad.scan.preparation import prepare
from hybriduad.scan.slices import slices_of
from hybriduad.scan.volumes import read_volume
from hybriduad.speed.measurement import Workload, measure_speed
from hybriduad.speed.networks import (
    Bench,
    build_reconstructor,
    count_gflops,
    matrix_rate,
    reconstruction,
    reconstruction_step,
    timed,
)
from hybriduad.speed.operations import count_operations, count_slice_gflops
from hybriduad.speed.scans import predict_scans, write_scans

CPU = torch.device("cpu")
SHAPE = (48, 56, 22)
SPACING_MM = (5.0, 5.0, 8.0)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("scans"), ["FLAIR"], SHAPE, SPACING_MM, 2)


def test_operations_are_counted_forward_and_backward() -> None:
    layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    image = torch.zeros(2, 3, 16, 16, requires_grad=True)
    forward = 2 * 2 * 5 * 16 * 16 * 3 * 9 / 1e9
    assert count_gflops(lambda: layer(image)) == pytest.approx(forward)
    # Backward: one convolution for the gradient of the image, one for that of the weights.
    assert count_gflops(lambda: layer(image).sum().backward()) == pytest.approx(3 * forward)


def test_calls_before_the_repeats_are_not_timed() -> None:
    slow = iter([0.2, 0.2, 0.0, 0.0, 0.0])
    seconds = timed(lambda: time.sleep(next(slow)), CPU, 3)
    assert len(seconds) == 3
    assert max(seconds) < 0.1


def test_rate_and_fraction_agree_with_the_time() -> None:
    rate = matrix_rate(torch.float32, CPU, 256, 5)
    a = torch.randn(256, 256)
    measured = Bench(CPU, "float32", rate, 5).measure(lambda: a @ a, 4)
    assert measured.gflops == pytest.approx(2 * 256**3 / 1e9)
    assert measured.fraction == pytest.approx(measured.gflops / measured.seconds / rate)
    assert measured.slices_per_second == pytest.approx(4 / measured.seconds)
    assert measured.least <= measured.seconds <= measured.most


def test_what_is_no_network_has_no_operations() -> None:
    measured = Bench(CPU, "float32", 1.0, 3).measure(lambda: None, 1, network=False)
    assert math.isnan(measured.gflops)
    assert math.isnan(measured.fraction)


def test_scans_have_the_shape_and_a_scalp_that_is_no_brain(scans: Path) -> None:
    first, second = read_manifest(scans)
    images = [read_volume(case.images["FLAIR"]) for case in (first, second)]
    assert [image.data.shape for image in images] == [SHAPE, SHAPE]
    assert images[0].grid.spacing_mm == pytest.approx(SPACING_MM)
    assert not np.array_equal(images[0].data, images[1].data)
    prepared = prepare(first, parse(RECONSTRUCTOR, "here").anatomy)
    assert prepared.notes["brain"]["method"].startswith("surface")
    assert prepared.brain.sum() < 0.9 * prepared.foreground.sum()


def test_a_step_trains_and_a_reconstruction_does_not(scans: Path) -> None:
    run = parse(RECONSTRUCTOR, "here")
    prepared = prepare(read_manifest(scans)[0], run.anatomy)
    batch = slices_of(prepared, [9, 10], 0)
    model = build_reconstructor(run)
    bench = Bench(CPU, "float32", 1.0, 1)
    step, reconstruct = reconstruction_step(bench, model, batch), reconstruction(bench, model, [batch])
    forward = count_gflops(lambda: model.loss(batch, batch.keys))
    assert 2 * forward < count_gflops(step) < 3 * forward + 1e-9
    (members,) = reconstruct()
    assert members.shape == (2, 2, 1, 32, 32)
    assert not members.requires_grad


def test_a_step_of_several_players_is_that_of_the_longest_phase_with_all_its_updates(
    scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"name": "fanogan", "width": 8, "depth": 2, "latent": 8}
    run = parse(RECONSTRUCTOR | {"model": model}, "here")
    batch = slices_of(prepare(read_manifest(scans)[0], run.anatomy), [9, 10], 0)
    seen: list[tuple[str, bool]] = []
    network = build_reconstructor(run)
    loss = type(network).loss

    def noted(model: Reconstructor, batch: Batch, keys: torch.Tensor, player: str) -> dict[str, torch.Tensor]:
        seen.append((player, torch.is_autocast_enabled("cpu")))
        return loss(model, batch, keys, player)

    monkeypatch.setattr(type(network), "loss", noted)
    step = reconstruction_step(Bench(CPU, "bfloat16", 1.0, 1), network, batch)
    assert count_gflops(step) > 5 * count_gflops(lambda: network.critic(batch.image))
    assert seen == [("critic", False)] * 5 + [("generator", False)]


def test_a_command_that_fails_is_an_error(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such bundle"):
        predict_scans(tmp_path / "nothing", scans, tmp_path / "predictions", "cpu")


def test_another_kind_of_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wrong kind"):
        measure_speed("synthetic", out=tmp_path / "out")


def test_whole_measurement(tmp_path: Path) -> None:
    larger = RECONSTRUCTOR | {"model": RECONSTRUCTOR["model"] | {"widths": [32, 32], "levels": [250]}}
    for name, run in (("tiny", RECONSTRUCTOR), ("larger", larger), ("detector", DETECTOR)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(run))
    result = measure_speed(
        str(tmp_path / "tiny.yaml"),
        out=tmp_path / "out",
        device="cpu",
        detector=str(tmp_path / "detector.yaml"),
        beside=str(tmp_path / "larger.yaml"),
        workload=Workload(SHAPE, SPACING_MM, scans=2, repeats=1, matrix=128, compared_slices=2),
    )
    written = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["speed.json", "speed.md"]
    assert (tmp_path / "out" / "speed.md").read_text() == str(result)
    assert written["measures"]["samples of a step, stage 1"]["gflops"] is None
    assert result.case["scans"] == 2
    assert result.case["seconds"] > 0
    # The process holds at least torch itself, and this test's process does not count.
    assert 100 < result.case["peak_mb"] < 4000
    # Twice the width of every layer, one level: between twice and four times the operations.
    assert 2 < result.beside["flop_ratio"] < 4
    assert result.beside["larger"]["parameters"] > 2 * result.beside["this"]["parameters"]
    assert set(result.products) == {"float32", "bfloat16"}


class TestOperations:
    def test_of_stage_1(self, tmp_path: Path) -> None:
        result = count_operations("restoration", out=tmp_path, overrides=["train.batch=2"])
        twice = count_operations("restoration", out=tmp_path, overrides=["model.repeats=2", "train.batch=1"])
        assert result.slice_gflops == pytest.approx(result.pass_gflops * 2 * 2)  # levels, mirrored views
        assert twice.slice_gflops == pytest.approx(2 * result.slice_gflops)
        assert twice.pass_gflops == pytest.approx(result.pass_gflops)
        assert result.step_gflops == pytest.approx(2 * twice.step_gflops, rel=0.01)
        # Forward and backward are three passes of every slice.
        assert result.step_gflops == pytest.approx(3 * result.batch * result.pass_gflops, rel=0.05)
        assert json.loads((tmp_path / "operations.json").read_text())["pass_gflops"] == twice.pass_gflops

    def test_of_stage_2_behind_stage_1(self, tmp_path: Path) -> None:
        stage1 = count_operations("restoration", out=tmp_path, overrides=["train.batch=1"])
        result = count_operations("synthetic", out=tmp_path, overrides=["train.batch=1"])
        members = 2
        assert result.slice_gflops == pytest.approx(stage1.slice_gflops + 2 * members * result.pass_gflops)
        passes = 3 * result.pass_gflops + stage1.pass_gflops
        assert result.step_gflops == pytest.approx(result.batch * passes, rel=0.05)

    def test_of_stage_1_without_an_image(self, tmp_path: Path) -> None:
        result = count_operations("rd", out=tmp_path, overrides=["train.batch=1"])
        assert result.slice_gflops == pytest.approx(2 * result.pass_gflops)
        # Of the frozen teacher there is no backward pass.
        assert 1.5 * result.pass_gflops < result.step_gflops < 3 * result.pass_gflops

    def test_of_fine_tuning_they_are_those_of_the_detector_before(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no network to count"):
            count_operations("few-labels", out=tmp_path)

    def test_of_a_segmenter_of_the_image_alone(self, tmp_path: Path) -> None:
        result = count_operations("synthetic-image", out=tmp_path, overrides=["train.batch=1"])
        assert result.slice_gflops == pytest.approx(2 * result.pass_gflops)
        assert result.step_gflops == pytest.approx(3 * result.batch * result.pass_gflops, rel=0.05)

    def test_of_a_part_only_what_it_needs_is_counted(self, tmp_path: Path) -> None:
        for name, content in (("stage1", RECONSTRUCTOR), ("stage2", DETECTOR)):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
        stage1 = configs.load(tmp_path / "stage1.yaml", [], kind="reconstructor")
        stage2 = configs.load(tmp_path / "stage2.yaml", [], kind="detector")
        members = build_reconstructor(stage1).members
        reconstructed = count_operations(tmp_path / "stage1.yaml", out=tmp_path).pass_gflops * members
        segmented = count_operations(tmp_path / "stage2.yaml", out=tmp_path).pass_gflops
        segmented /= (96 / 32) ** 2  # counted on the larger slices of restoration
        for part in ("score", "probability"):
            whole = count_slice_gflops(part, stage1, stage2, mirror=False)
            assert whole == pytest.approx(reconstructed + members * segmented, rel=0.01)
            assert count_slice_gflops(part, stage1, stage2, mirror=True) == pytest.approx(2 * whole)
        for part, second in (("map", stage2), ("map", None), ("score", None)):
            assert count_slice_gflops(part, stage1, second, mirror=False) == pytest.approx(reconstructed)
        assert count_slice_gflops("intensity", stage1, stage2, mirror=True) == 0
        # A segmenter of the image alone beside a reconstructor: its probability needs no reconstruction, its score one.
        image = configs.load(tmp_path / "stage2.yaml", ["segmenter.inputs=[image]"], kind="detector")
        alone = image.model_copy(update={"anatomy": stage1.anatomy})
        once = count_slice_gflops("probability", None, alone, mirror=False)
        assert count_slice_gflops("probability", stage1, image, mirror=False) == pytest.approx(once)
        assert count_slice_gflops("score", stage1, image, mirror=False) == pytest.approx(once + reconstructed)
        for part, networks in (("map", (None, alone)), ("probability", (stage1, None)), ("score", (None, stage2))):
            with pytest.raises(ConfigError, match="no network to count"):
                count_slice_gflops(part, *networks, mirror=True)

    def test_of_a_segmenter_that_restores_the_slice_itself(self, tmp_path: Path) -> None:
        result = count_operations("draem", out=tmp_path, overrides=["train.batch=1"])
        assert result.slice_gflops == pytest.approx(2 * result.pass_gflops)
        # In training the slice is restored once, for its loss and beside the slice.
        assert result.step_gflops == pytest.approx(3 * result.batch * result.pass_gflops, rel=0.05)
        stacked = ["segmenter.layout=stacked", "segmenter.inputs=[image]", "train.batch=1"]
        alone = count_operations("draem", out=tmp_path, overrides=stacked)
        assert result.pass_gflops > 1.5 * alone.pass_gflops

    def test_of_a_segmenter_of_the_image_beside_a_reconstructor(self, tmp_path: Path) -> None:
        """It sees a slice once, not once a level, and in training nothing is reconstructed for it."""
        image = ["segmenter.inputs=[image]", "train.batch=1"]
        result = count_operations("synthetic", out=tmp_path, overrides=image)
        alone = count_operations("synthetic-image", out=tmp_path, overrides=["train.batch=1"])
        stage1 = count_operations("restoration", out=tmp_path, overrides=["train.batch=1"])
        assert result.slice_gflops == pytest.approx(stage1.slice_gflops + alone.slice_gflops)
        assert result.step_gflops == pytest.approx(alone.step_gflops)
