"""The paper's two configs, trained: ``cddpm`` and on it ``paper``, smaller and for a few steps, else as shipped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core import plugins
from hybriduad.core.rng import fold
from hybriduad.detector.bundle import Bundle
from hybriduad.detector.loading import load_detector
from hybriduad.networks.segmenter import Segmenter
from hybriduad.prediction.case import predict_case
from hybriduad.reconstructors.ddpm import Model
from hybriduad.training.fitting import fit_detector, fit_reconstructor

SMALLER = ["anatomy.size=32", "model.widths=[16, 16, 16]"]
SHORTER = ["train.steps=3", "train.batch=2", "train.workers=0"]


@dataclasses.dataclass(frozen=True)
class Paper:
    """Both bundles, and the noise levels at which stage 2 had its reconstructions."""

    reconstructor: Bundle
    detector: Bundle
    levels: list[int]


@pytest.fixture(scope="module")
def paper(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Paper:
    folder = tmp_path_factory.mktemp("paper")
    stage1 = fit_reconstructor(
        "cddpm",
        tiny_cohort,
        out=folder / "cddpm",
        overrides=[*SMALLER, *SHORTER],
        device="cpu",
        cache=folder / "cache",
    )
    levels: list[int] = []
    drawn_level = Model._drawn_level

    def noted(self: Model, keys: torch.Tensor) -> torch.Tensor:
        drawn = drawn_level(self, keys)
        levels.extend(drawn.tolist())
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "_drawn_level", noted)
        stage2 = fit_detector(
            "paper",
            tiny_cohort,
            out=folder / "paper",
            reconstructor=stage1.folder,
            overrides=SHORTER,
            device="cpu",
            cache=folder / "cache",
        )
    return Paper(stage1, stage2, levels)


def test_stage_1_learns_the_encoder_of_the_condition_as_well(paper: Paper) -> None:
    run = paper.reconstructor.run
    assert (run.model.condition, run.model.levels, run.mix.synthetic) == ("resnet50", (250, 500, 750), 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(run.seed, "weights"))
        start = plugins.load("reconstructors", "ddpm").Model(run.model, 1, 32).state_dict()
    trained = load_file(paper.reconstructor.folder / "weights.safetensors")
    for part in ("network.conv_in.weight", "network.conv_out.weight", "encoder.to_width.weight"):
        assert float((trained[part] - start[part]).abs().max()) > 0
    # It starts as no condition: only after the first step does a gradient reach the trunk.
    assert float((trained["encoder.trunk.conv1.weight"] - start["encoder.trunk.conv1.weight"]).abs().max()) > 0


def test_stage_2_learns_at_levels_of_the_whole_range(paper: Paper) -> None:
    run = paper.detector.run
    assert (run.segmenter.layout, run.segmenter.inputs) == ("siamese", ("image", "residual"))
    assert run.training_levels == "all"
    assert run.residual == paper.reconstructor.run.residual
    assert len(paper.levels) >= 6  # three steps of two slices, and those of the validation
    assert not set(paper.levels) <= set(paper.reconstructor.run.model.levels)
    assert max(paper.levels) - min(paper.levels) > 300
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(run.seed, "weights"))
        start = Segmenter(run.segmenter, 1).state_dict()
    trained = load_file(paper.detector.folder / "weights.safetensors")
    assert any(not torch.equal(trained[name], start[name]) for name in start)


def test_a_case_is_predicted(paper: Paper, tiny_cohort: Path) -> None:
    detector = load_detector(paper.detector.folder, "cpu")
    prediction = predict_case(detector, read_cohort(tiny_cohort)[0])
    assert prediction.score is not None
    assert prediction.map is not None
    assert prediction.probability is not None
    assert prediction.reconstruction is not None
    inside = prediction.brain
    for values in (prediction.score, prediction.map, prediction.probability):
        assert np.isfinite(values).all()
        assert 0 <= values.min() <= values.max() <= 1
        assert len(np.unique(values[inside])) > 100
    # The paper's sum, halved into [0, 1].
    np.testing.assert_allclose(prediction.score, (prediction.map + prediction.probability) / 2, atol=1e-5)
