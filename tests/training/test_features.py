"""A family without an image, from the fitting of both stages to the figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import DETECTOR
from torchvision.models import resnet18

from hybriduad.core.errors import ConfigError
from hybriduad.detector.bundle import Bundle
from hybriduad.detector.loading import load_detector
from hybriduad.evaluation.evaluate import evaluate
from hybriduad.prediction.cohort import predict_cohort
from hybriduad.training.fitting import fit_detector, fit_reconstructor

TRAIN = {"steps": 2, "lr": 1.0e-3, "batch": 2, "precision": "float32"}
STAGE_1 = {
    "kind": "reconstructor",
    "anatomy": {"contrasts": ["FLAIR"], "size": 32},
    "model": {"name": "rd", "embedding": 16},
    "residual": {"median_mm": 5.0},
    "train": TRAIN,
}
SEGMENTER = {"encoder": "tu-test_resnet", "decoder_channels": [16, 8]}
Fit = Callable[..., Bundle]


def written(folder: Path, run: dict[str, Any], **changes: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**run, "train": TRAIN, **changes}))
    return path


@pytest.fixture(scope="module")
def stage1(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("stage1")
    return fit_reconstructor(written(folder, STAGE_1), tiny_cohort, out=folder / "rd", device="cpu")


@pytest.fixture
def fit(stage1: Bundle, tiny_cohort: Path, tmp_path: Path) -> Fit:
    def fit(**changes: Any) -> Bundle:
        config = written(tmp_path, DETECTOR, **changes)
        return fit_detector(config, tiny_cohort, out=tmp_path / "out", reconstructor=stage1.folder, device="cpu")

    return fit


def test_its_bundle_holds_the_frozen_network_and_no_reference_features(stage1: Bundle) -> None:
    weights, statistics = (load_file(stage1.folder / f"{name}.safetensors") for name in ("weights", "statistics"))
    assert "teacher.conv1.weight" in weights
    assert "histogram_map" in statistics
    assert not [name for name in statistics if name.startswith("feature")]
    assert not (weights["teacher.bn1.running_var"] == 1).all()


@pytest.mark.parametrize("inputs", [["image", "residual"], ["reconstruction"]])
def test_a_segmenter_of_reconstructions_is_refused(fit: Fit, inputs: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reconstructor that has no image: got .*'rd'; set segmenter.inputs to"):
        fit(segmenter={**SEGMENTER, "inputs": inputs})
    assert not list(tmp_path.glob("out*"))


def test_a_residual_of_images_is_refused(fit: Fit, tiny_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="residual of images for a reconstructor that has no image"):
        fit(segmenter={**SEGMENTER, "inputs": ["image"]}, residual={"kind": "absolute"})
    config = written(tmp_path, STAGE_1, residual={"combine": "geometric"})
    with pytest.raises(ConfigError, match="residual of images for a reconstructor that has no image"):
        fit_reconstructor(config, tiny_cohort, out=tmp_path / "out", device="cpu")


def test_fitted_predicted_and_evaluated_beside_a_segmenter_of_the_image(
    fit: Fit, tiny_cohort: Path, tmp_path: Path
) -> None:
    bundle = fit(segmenter={**SEGMENTER, "inputs": ["image"]})
    assert bundle.residual.median_mm == 5.0
    out = predict_cohort(bundle.folder, tiny_cohort, out=tmp_path / "predictions", maps=("all",), device="cpu").out
    records = [json.loads(path.read_text()) for path in out.glob("sub-*/anat/*_desc-anomaly_probseg.json")]
    assert len(records) == 3
    for record in records:
        assert {"score", "map", "probability", "intensity", "asymmetry", "brain"} == set(record["parts"])
    assert not list(out.rglob("*pseudohealthy*"))
    scores = tmp_path / "scores"
    evaluate(out, tiny_cohort, out=scores, allow_leakage=True)
    facts = [json.loads(path.read_text())["facts"] for path in scores.rglob("sub-*.json")]
    assert len(facts) == 3
    assert all(case[name] is None for case in facts for name in ("l1_healthy", "l1_lesion", "l1_ratio"))
    assert "l1_" not in (scores / "summary.csv").read_text()


def test_weights_that_the_config_names(tiny_cohort: Path, tmp_path: Path) -> None:
    """They are in the bundle, which needs no file beside it, and another content is another training."""
    path, out = tmp_path / "weights.safetensors", tmp_path / "out"

    def fitted(seed: int) -> Bundle:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            save_file(resnet18(weights=None).state_dict(), path)
        config = written(tmp_path, STAGE_1, model={"name": "rd", "embedding": 16, "weights": str(path)})
        return fit_reconstructor(config, tiny_cohort, out=out, device="cpu")

    bundle, given = fitted(1), load_file(path)
    assert torch.equal(load_file(bundle.folder / "weights.safetensors")["teacher.conv1.weight"], given["conv1.weight"])
    with pytest.raises(ConfigError, match="pretrained"):
        fitted(2)
    path.unlink()
    detector = load_detector(bundle.folder, "cpu")
    assert torch.equal(detector.reconstructor.teacher.conv1.weight, given["conv1.weight"])
