"""A training in phases, of a family with several players: who learns when, how often and at what rate."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from hybriduad.core import rng
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Batch
from hybriduad.detector.bundle import Bundle
from hybriduad.reconstructors.fanogan import Model
from hybriduad.training.fitting import fit_reconstructor
from hybriduad.training.loop import CHECKPOINT, Progress, _reached
from hybriduad.training.samples import SampleStream
from hybriduad.training.tasks import ReconstructionTask

RUN = {
    "kind": "reconstructor",
    "anatomy": {"contrasts": ["FLAIR"], "size": 32},
    "model": {"name": "fanogan", "width": 8, "depth": 2, "latent": 8},
    "train": {
        "steps": 7,
        "lr": 1.0e-3,
        "batch": 2,
        "warmup": 2,
        "checkpoint_every": 2,
        "picture_every": 3,
        "precision": "float32",
    },
}
"""Seven steps: four of critic and generator, three of the encoder."""
Fit = Callable[..., Bundle]


class Stopped(Exception):
    """What ends a training in these tests."""


class Watched:
    """What every call of the family's loss in training saw: player, keys, autocast, and the weights as they were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, tuple[int, ...], bool]] = []
        self.weights: list[dict[str, torch.Tensor]] = []
        self.shown: list[tuple[str, bool]] = []
        loss = Model.loss

        def watched(model: Model, batch: Batch, keys: torch.Tensor, player: str) -> dict[str, torch.Tensor]:
            autocast = torch.is_autocast_enabled("cpu")
            if torch.is_grad_enabled():
                self.calls.append((player, tuple(keys.tolist()), autocast))
                self.weights.append({name: value.clone() for name, value in model.state_dict().items()})
            else:
                self.shown.append((player, autocast))
            return loss(model, batch, keys, player)

        monkeypatch.setattr(Model, "loss", watched)

    def changed(self, first: int, last: int) -> set[str]:
        """The parts whose weights differ between two calls."""
        before, after = self.weights[first], self.weights[last]
        return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def fit(tiny_cohort: Path, tmp_path: Path, cache: Path) -> Fit:
    (tmp_path / "gan.yaml").write_text(yaml.safe_dump(RUN))

    def fit(name: str = "out", *changes: str) -> Bundle:
        place: dict[str, Any] = {"out": tmp_path / name, "device": "cpu", "cache": cache, "overrides": changes}
        return fit_reconstructor(tmp_path / "gan.yaml", tiny_cohort, **place)

    return fit


def test_who_learns_when_and_how_often(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    fit()
    players = [player for player, _, _ in watched.calls]
    assert players == [*["critic"] * 5, "generator"] * 4 + ["encoder"] * 3
    assert watched.changed(0, 5) == {"critic"}
    assert watched.changed(5, 6) == {"generator"}
    assert watched.changed(0, 24) == {"critic", "generator"}  # the first call of the encoder: it is as at first
    assert watched.changed(24, 26) == {"encoder"}
    assert len({keys for _, keys, _ in watched.calls}) == len(players)  # every update draws anew
    assert {player for player, _ in watched.shown} == {"critic", "generator", "encoder"}


def test_the_first_update_has_the_key_of_its_player(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, batches = Watched(monkeypatch), []
    item = SampleStream.__getitem__
    monkeypatch.setattr(SampleStream, "__getitem__", lambda stream, k: batches.append(item(stream, k)) or batches[-1])
    fit()
    keys = batches[0].keys
    assert watched.calls[0][1] == tuple(rng.fold_keys(keys, "critic").tolist())
    assert watched.calls[2][1] == tuple(rng.fold_keys(rng.fold_keys(keys, "critic"), "update", 2).tolist())


def test_the_critic_is_float32_in_training_and_validation(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    fit("out", "train.precision=bfloat16")
    expected = {("critic", False), ("generator", False), ("encoder", True)}
    assert {(player, autocast) for player, _, autocast in watched.calls} == expected
    assert set(watched.shown) == expected


def test_the_schedule_of_a_player_runs_over_its_own_phase(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[str, list[float]] = {}
    step = ReconstructionTask._step

    def noted(task: ReconstructionTask, index: int, loss: torch.Tensor, *, counted: bool = True) -> None:
        (group,) = task.trainer.optimizers[index].param_groups
        rates.setdefault(task.model.players()[index].name, []).append(group["lr"])
        assert group["betas"] == task.model.players()[index].betas
        step(task, index, loss, counted=counted)

    monkeypatch.setattr(ReconstructionTask, "_step", noted)
    fit()
    # Half of the warm-up, all of it, the top of the cosine over two steps, its middle.
    gan = [0.5, 1.0, 1.0, 0.505]
    assert rates["generator"] == pytest.approx([4e-4 * share for share in gan])
    assert rates["critic"] == pytest.approx([4e-4 * share for share in gan for _ in range(5)])
    assert rates["encoder"] == pytest.approx([1e-3 * share for share in (0.5, 1.0, 1.0)])


@pytest.mark.parametrize(("stop", "reached"), [(3, 2), (4, 4), (6, 6)])
def test_stopped_in_either_phase_or_between_and_continued_the_weights_are_the_same(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop: int, reached: int
) -> None:
    whole, item = fit("whole"), SampleStream.__getitem__

    def stopping(stream: SampleStream, step: int) -> Batch:
        if step == stop:
            raise Stopped
        return item(stream, step)

    with monkeypatch.context() as patch:
        patch.setattr(SampleStream, "__getitem__", stopping)
        with pytest.raises(Stopped):
            fit("stopped")
    assert _reached(tmp_path / "stopped.partial" / CHECKPOINT) == reached  # every two steps, however many updates
    continued, weights = (load_file(b.folder / "weights.safetensors") for b in (fit("stopped"), whole))
    assert not [name for name, value in weights.items() if not torch.equal(value, continued[name])]


def test_the_averaged_generator_is_the_one_that_the_encoder_learnt_beside(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow average would mix it with what it was before the phase of the encoder."""
    watched = Watched(monkeypatch)
    bundle = fit("out", "train.steps=20", "train.picture_every=100", "train.checkpoint_every=100")
    kept, beside = load_file(bundle.folder / "weights.safetensors"), watched.weights[-1]
    started, untrained = watched.weights[12 * 6], watched.weights[0]
    for name, value in kept.items():
        part = name.partition(".")[0]
        if part != "encoder":
            torch.testing.assert_close(value, beside[name], atol=1e-6, rtol=0)
            assert torch.equal(beside[name], started[name])
    assert Counter(player for player, _, _ in watched.calls)["encoder"] == 8
    moved = {part: False for part in ("encoder", "generator", "critic")}
    for name, value in kept.items():
        moved[name.partition(".")[0]] |= bool((value - untrained[name]).abs().max() > 1e-3)
    assert all(moved.values())


def test_the_log_and_the_curves_hold_every_phase(fit: Fit) -> None:
    folder = fit().folder
    (table,) = folder.glob("log/version_*/metrics.csv")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    steps = {
        name: [int(row["step"]) for row in rows if row.get(name)]
        for name in ("critic_loss", "generator_loss", "encoder_loss", "validation_encoder_loss", "validation_auprc")
    }
    assert steps["critic_loss"] == steps["generator_loss"] == [0, 1, 2, 3]
    assert steps["encoder_loss"] == [4, 5, 6]
    assert sorted(set(steps["validation_encoder_loss"])) == sorted(set(steps["validation_auprc"])) == [0, 2, 4, 5, 6]
    assert (folder / "pictures" / "loss.png").is_file()


def test_figures_on_the_way_change_no_weight(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = load_file(fit("shown").folder / "weights.safetensors")
    monkeypatch.setattr(Progress, "_judge", lambda *_: None)
    silent = load_file(fit("silent").folder / "weights.safetensors")
    assert not [name for name, value in shown.items() if not torch.equal(value, silent[name])]


def test_too_few_steps_for_the_phases_are_refused(fit: Fit) -> None:
    with pytest.raises(ConfigError, match=r"phase of 'fanogan' without a step.*train.steps 1.*\.$"):
        fit("out", "train.steps=1")
