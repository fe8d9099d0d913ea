"""Systems of one stage, trained as shipped but smaller and for a few steps: DRAEM-Net, PII, FPI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import generators, prepared_cases

from hybriduad.core import rng
from hybriduad.core.errors import BundleError
from hybriduad.core.types import Batch
from hybriduad.detector.bundle import WEIGHTS, Bundle
from hybriduad.detector.loading import load_detector, load_weights
from hybriduad.networks.segmenter import Segmenter
from hybriduad.training.fitting import fit_detector
from hybriduad.training.tasks import SegmentationTask

SMALLER = [
    "anatomy.size=32",
    "segmenter.decoder_channels=[8,8,8]",
    "segmenter.encoder=tu-test_resnet",
    "train.steps=3",
    "train.batch=4",
    "train.precision=float32",
]


@pytest.fixture(scope="module", params=["draem", "pii", "fpi"])
def system(request: pytest.FixtureRequest, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp(request.param)
    before = generators()
    learnt: list[torch.Tensor] = []
    losses = SegmentationTask.losses

    def noted(task: SegmentationTask, batch: Batch) -> dict[str, torch.Tensor]:
        if task.training:
            learnt.append(batch.target[batch.lesion])
        return losses(task, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationTask, "losses", noted)
        bundle = fit_detector(request.param, tiny_cohort, out=folder / "det", overrides=SMALLER, device="cpu")
    assert generators() == before
    values = torch.cat(learnt)
    assert len(learnt) == 3
    assert len(values) > 0
    # PII and FPI regress the factor of blending, which is 1 nowhere; DRAEM learns the mask.
    assert bool((values == 1).any()) == bool((values == 1).all()) == (request.param == "draem")
    return bundle


def test_every_weight_is_trained(system: Bundle) -> None:
    trained = load_file(system.folder / WEIGHTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(system.run.seed, "weights"))
        start = Segmenter(system.run.segmenter, 1).state_dict()
    assert trained.keys() == start.keys()
    assert [name for name in start if torch.equal(trained[name], start[name])] == []
    assert any(name.startswith("restorer.") for name in start) == (system.run.segmenter.layout == "draem")
    header = (system.folder / "log" / "version_0" / "metrics.csv").read_text().split("\n")[0].split(",")
    assert ("restoration" in header) == (system.run.segmenter.layout == "draem")
    assert {"validation_auprc", "validation_unseen_auprc"} <= set(header)
    assert "validation_unseen_map_auprc" not in header  # there is no reconstructor


def test_the_score_is_the_probability(system: Bundle, tiny_cohort: Path) -> None:
    assert system.reconstructor is None
    detector, case = load_detector(system.folder, "cpu"), prepared_cases(tiny_cohort)[0]
    whole = detector.predict_volume(case)
    assert whole.map is None
    assert whole.reconstruction is None
    assert np.array_equal(whole.score, whole.probability)
    assert 0 <= whole.score.min() < whole.score.max() <= 1
    np.testing.assert_allclose(detector.predict_volume(case, batch=3).score, whole.score, atol=1e-4)


def test_weights_are_loaded_strictly(system: Bundle) -> None:
    other = (
        {"layout": "stacked", "inputs": ("image",)}
        if system.run.segmenter.layout == "draem"
        else {
            "layout": "draem",
            "inputs": ("image", "reconstruction"),
        }
    )
    with pytest.raises(BundleError, match="do not fit"):
        load_weights(system.folder, Segmenter(system.run.segmenter.model_copy(update=other), 1))


def test_fine_tuning_keeps_what_the_system_is(
    system: Bundle, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labelled slices have the mask as their target and, in the lesion, none for the restoration."""
    seen = []
    losses = SegmentationTask.losses
    monkeypatch.setattr(SegmentationTask, "losses", lambda self, batch: seen.append(batch) or losses(self, batch))
    few = fit_detector(
        "few-labels",
        tiny_cohort,
        init=system.folder,
        out=tmp_path / "few",
        overrides=[
            "train.steps=2",
            "train.batch=4",
            "mix={labelled: 1, healthy: 0, synthetic: 0}",
            "loss.target=visibility",
        ],
        device="cpu",
    )
    assert few.run.segmenter == system.run.segmenter
    trained = [batch for batch in seen if len(batch.image) == 4]  # the other batches are of the validation
    assert len(trained) == 2
    for batch in trained:
        assert batch.lesion.any()
        assert torch.equal(batch.target, batch.lesion.float())
    header = (few.folder / "log" / "version_0" / "metrics.csv").read_text().split("\n")[0].split(",")
    assert ("restoration" in header) == (system.run.segmenter.layout == "draem")
