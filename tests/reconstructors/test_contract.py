"""The contract of every reconstruction family, and what is particular to some of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from tiny import ANATOMY, SPACING_MM, generators, prepared_cases, some_batch, write_nifti

from hybriduad.config import files as configs
from hybriduad.config.runs import Augmentation, Mix, Residual
from hybriduad.config.strict import checked
from hybriduad.core import plugins, rng
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import BACKGROUND, Batch, Case
from hybriduad.networks.losses import reconstruction_l1
from hybriduad.networks.scoring import residual_map
from hybriduad.phantom.subject import make_subject
from hybriduad.reconstructors._base import FeatureReconstructor, Player, Reconstructor
from hybriduad.reconstructors._condition import ConditionEncoder
from hybriduad.reconstructors._noise import _UNSKEW, _simplex_2d, noise_fields
from hybriduad.scan.preparation import Prepared, prepare
from hybriduad.scan.slices import slices_of
from hybriduad.training.samples import SampleStream, build_pool

SIZE = 32
TINY: dict[str, dict[str, Any]] = {
    "ddpm": {"widths": [16, 32], "blocks": 1, "unshuffle": 2, "train_levels": [0, 400], "levels": [100, 200]},
    "dae": {"width": 8, "depth": 3, "cells": 8},
    "ae": {"width": 16, "depth": 2},
    "vae": {"width": 16, "depth": 2, "latent": 64},
    "fae": {"width": 16, "depth": 2},
    "rd": {"embedding": 32},
    "pddpm": {"widths": [16, 32], "blocks": 1, "unshuffle": 2, "train_levels": [0, 400], "levels": [100, 200]},
    "fanogan": {"width": 16, "depth": 2, "latent": 64},
    "infill": {"widths": [16, 32], "unshuffle": 1},
}
"""A small configuration of every family; a new family adds a line."""
STEPS = {"fanogan": 200}
"""Steps until a family keeps the contract, if not 100: a generator without a target of its own needs more."""
DISTANCE = {"fanogan": 0.65}
"""How far from healthy tissue a family may be, relative to the mean image, if not half as far: adversaries of 200 steps
end in another place on every kind of processor (.57 where matrix units round to bfloat16)."""
PARTS = {"pddpm": 16}
"""Families whose loss is of a part of the slice that the key draws, and in how many draws every part occurs."""
TARGETLESS = {"generator"}
"""Players whose loss has no target: what the critic says of generated slices."""
NOISELESS = {"ae", "fae", "rd"}
"""Families that draw nothing at random: no key changes anything."""
FAMILIES = plugins.names("reconstructors")
WITHOUT_IMAGE = [
    name for name in FAMILIES if issubclass(plugins.load("reconstructors", name).Model, FeatureReconstructor)
]
WITH_IMAGE = [name for name in FAMILIES if name not in WITHOUT_IMAGE]
STILL = Augmentation(**dict.fromkeys(Augmentation.model_fields, 0.0))
Reconstruct = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Image (B, C, H, W), brain (B, H, W), keys (B,) -> (K, B, C, H, W), as ``Reconstructor.reconstruct``."""
KINDS = ("simplex", "gaussian", "pyramid")


def make(family: str, contrasts: int = 1, size: int = SIZE, **changes: Any) -> Reconstructor:
    module = plugins.load("reconstructors", family)
    config = checked(module.Config, {"name": family, **TINY.get(family, {}), **changes}, "tests")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: Reconstructor = module.Model(config, contrasts, size)
    return model


def some_rows(batch: Batch, rows: list[int]) -> Batch:
    return Batch(**{field.name: getattr(batch, field.name)[rows] for field in fields(Batch)})


def outcome(model: Any, batch: Batch) -> torch.Tensor:
    """What a family says of slices: every member's reconstruction (K, B, C, H, W), or without an image its map
    (1, B, H, W)."""
    if isinstance(model, FeatureReconstructor):
        return model.anomaly_map(batch.image, batch.valid, batch.brain, batch.keys)[None]
    reconstructed: torch.Tensor = model.reconstruct(batch.image, batch.brain, batch.keys)
    return reconstructed


def learn(model: Reconstructor, batch: Batch, player: Player, update: int, optimiser: torch.optim.Optimizer) -> None:
    """An update of a player."""
    keys = rng.fold_keys(batch.keys, player.name, *(["update", update] if update else []))
    with model.learning(player.name):
        optimiser.zero_grad()
        model.loss(batch, keys, player.name)["loss"].backward()
        optimiser.step()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_method_is_named_with_a_paper_that_the_file_names(family: str) -> None:
    module = plugins.load("reconstructors", family)
    for changes in [{}, {"condition": "small"}, {"noise": "gaussian"}] if family == "ddpm" else [{}]:
        method = checked(module.Config, {"name": family, **TINY[family], **changes}, "tests").method
        (paper,) = re.findall(r"(?:arXiv|doi|PMLR)[: ]([\w./-]*\w)", method)
        assert paper in module.__doc__, method


@pytest.fixture(scope="module")
def prepared(tiny_cohort: Path) -> list[Prepared]:
    return prepared_cases(tiny_cohort)


@pytest.fixture(scope="module")
def trained(prepared: list[Prepared]) -> dict[str, tuple[Reconstructor, torch.Tensor]]:
    """Each family after its few steps on healthy slices, and the mean of these slices."""
    pool = build_pool(prepared, ["lesion", "lesion", "healthy"], lesion_margin_mm=8.0)
    stream = SampleStream(pool, seed=1, batch=8, steps=max(100, *STEPS.values()), mix=Mix(), augmentation=STILL)
    mean = torch.cat([slices_of(pool.prepared[case], [k], 0).image for case, k in pool.healthy]).mean(dim=0)
    models = {}
    for family in FAMILIES:
        model = make(family).train()
        for players, steps in zip(model.phases, model.phase_steps(STEPS.get(family, 100)), strict=True):
            optimisers = {
                player: torch.optim.Adam(
                    model.parameters_of(player.name), lr=3e-3 * player.lr_scale, betas=player.betas
                )
                for player in players
            }
            for step in steps:
                for player, optimiser in optimisers.items():
                    for update in range(player.updates):
                        learn(model, stream[step], player, update, optimiser)
        models[family] = (model.eval(), mean)
    return models


def test_every_family_has_a_tiny_configuration() -> None:
    assert set(TINY) == set(FAMILIES)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Slices of two healthy subjects that nobody learnt from, with a bright lesion painted into each."""
    folder = tmp_path_factory.mktemp("unseen")
    cases = []
    for subject in ("11", "12"):
        phantom = make_subject(7, int(subject), contrasts=("FLAIR",), spacing_mm=SPACING_MM)
        image = write_nifti(folder / f"{subject}_FLAIR.nii.gz", phantom.images["FLAIR"], phantom.affine)
        brain = write_nifti(folder / f"{subject}_brain.nii.gz", phantom.brain.astype(np.uint8), phantom.affine)
        cases.append(prepare(Case("unseen", subject, {"FLAIR": image}, brain=brain, health="healthy"), ANATOMY))
    stream = SampleStream(
        build_pool(cases, ["healthy"] * 2, lesion_margin_mm=0.0),
        seed=5,
        batch=32,
        steps=1,
        mix=Mix(healthy=0.0, synthetic=1.0),
        augmentation=STILL,
        anomalies=[plugins.load("anomalies", "lesion").Config(name="lesion", bright=0.9)],
    )
    return stream[0]


def shortcomings(reconstruct: Reconstruct, painted: Batch, mean: torch.Tensor, distance: float = 0.5) -> list[str]:
    """What a reconstruction of healthy anatomy reaches and this one does not; empty for one that is worth the name.

    ``painted`` are unseen slices whose clean versions are known, ``mean`` (C, H, W) is the mean of healthy slices.
    A filter can have tissue right or drop lesions, but the more it does of the one the less of the other, and what it
    changes it changes nearly everywhere alike.
    """
    with torch.inference_mode():
        reconstruction = reconstruct(painted.image, painted.brain, painted.keys).mean(dim=0)
    change = (painted.image - painted.healthy).abs()[:, 0]
    lesion = painted.lesion & (change > 0.1)
    tissue = painted.brain & ~painted.lesion & ~painted.ignore
    error = (reconstruction - painted.healthy).abs()[:, 0]
    residual = (reconstruction - painted.image).abs()[:, 0]
    of_mean = (mean - painted.healthy).abs()[:, 0]
    reached = {
        "healthy tissue is closer than the mean image": error[tissue].mean() < distance * of_mean[tissue].mean(),
        "three fifths of a lesion's change are undone": error[lesion].mean() < 0.4 * change[lesion].mean(),
        "lesions stand out from tissue by 2.5": residual[lesion].mean() > 2.5 * residual[tissue].mean(),
    }
    return [demand for demand, true in reached.items() if not true]


@pytest.mark.parametrize("family", WITH_IMAGE)
def test_learns_healthy_tissue_and_does_not_reproduce_unseen_lesions(
    family: str, trained: dict[str, tuple[Reconstructor, torch.Tensor]], painted: Batch
) -> None:
    model, mean = trained[family]
    assert shortcomings(model.reconstruct, painted, mean, DISTANCE.get(family, 0.5)) == []


def blurred(deviation: float) -> Reconstruct:
    sigma = (0, 0, deviation, deviation)
    return lambda image, brain, keys: torch.from_numpy(ndimage.gaussian_filter(image.numpy(), sigma))[None]


def share_of(share: float, black: float) -> Reconstruct:
    return lambda image, brain, keys: share * (image[None] - black) + black


FAKES: dict[str, Reconstruct] = {
    **{f"Gaussian blur of {deviation} voxels": blurred(deviation) for deviation in (0.5, 1.0, 2.0, 3.0, 5.0)},
    **{f"{share} of the image": share_of(share, 0.0) for share in (0.5, 0.9, 1.0)},
    **{f"{share} of the brightness": share_of(share, BACKGROUND) for share in (0.7, 0.9)},
    "median filter": lambda image, brain, keys: torch.from_numpy(ndimage.median_filter(image, (1, 1, 5, 5)))[None],
}
"""What learns nothing: closer to healthy tissue than the mean image, and further from lesions than from tissue."""


@pytest.mark.parametrize("name", FAKES)
def test_what_learns_nothing_falls_short(
    name: str, trained: dict[str, tuple[Reconstructor, torch.Tensor]], painted: Batch
) -> None:
    """A blur and nine tenths of the image passed as reconstructors of healthy anatomy."""
    _, mean = trained[WITH_IMAGE[0]]
    missed = shortcomings(FAKES[name], painted, mean)
    assert "lesions stand out from tissue by 2.5" in missed
    assert "three fifths of a lesion's change are undone" in missed


def test_the_mean_image_falls_short(trained: dict[str, tuple[Reconstructor, torch.Tensor]], painted: Batch) -> None:
    _, mean = trained[WITH_IMAGE[0]]
    assert len(shortcomings(lambda i, b, k: mean.expand_as(i)[None], painted, mean)) == 3


Judge = Callable[[Batch], torch.Tensor]
"""Slices -> map (B, H, W) in [0, 1]."""


def map_shortcomings(judge: Judge, untrained: Judge, painted: Batch) -> list[str]:
    """What the map of a family without an image reaches and this one does not; ``untrained`` is its map at first.

    A map of brightness can rank these lesions, but learns nothing; an untrained network cannot even do that.
    """
    clean = replace(painted, image=painted.healthy)
    with torch.inference_mode():
        of_painted, of_clean, at_first = judge(painted), judge(clean), untrained(painted)
    lesion = painted.lesion & ((painted.image - painted.healthy).abs()[:, 0] > 0.1)
    tissue = painted.brain & ~painted.lesion & ~painted.ignore
    rank = roc_auc_score(lesion[lesion | tissue], of_painted[lesion | tissue])
    reached = {
        "healthy tissue is closer than at first by a quarter": of_painted[tissue].mean()
        < 0.75 * at_first[tissue].mean(),
        "lesions outrank tissue in 7 of 10 pairs": rank > 0.7,
        "a lesion raises the map where it is by 5 %": of_painted[lesion].mean() > 1.05 * of_clean[lesion].mean(),
    }
    return [demand for demand, true in reached.items() if not true]


@pytest.mark.parametrize("family", WITHOUT_IMAGE)
def test_a_map_without_an_image_learns_healthy_tissue_and_shows_unseen_lesions(
    family: str, trained: dict[str, tuple[Reconstructor, torch.Tensor]], painted: Batch
) -> None:
    model, untrained = trained[family][0], make(family).eval()

    def at_first(batch: Batch) -> torch.Tensor:
        return outcome(untrained, batch)[0]

    assert map_shortcomings(lambda batch: outcome(model, batch)[0], at_first, painted) == []
    assert len(map_shortcomings(at_first, at_first, painted)) == 3


def test_a_map_that_learns_nothing_falls_short(painted: Batch) -> None:
    def brightness(batch: Batch) -> torch.Tensor:
        return (batch.image[:, 0] + 1) / 2 * batch.brain

    assert map_shortcomings(brightness, brightness, painted) == ["healthy tissue is closer than at first by a quarter"]


@pytest.mark.parametrize("contrasts", [1, 3])
@pytest.mark.parametrize("family", WITH_IMAGE)
class TestImages:
    """What every family with an image promises, trained or not."""

    def test_reconstructions_have_the_shape_of_the_members(
        self, family: str, contrasts: int, prepared: list[Prepared]
    ) -> None:
        model, batch = make(family, contrasts).eval(), some_batch(prepared[0], 3, contrasts)
        with torch.inference_mode():
            members = model.reconstruct(batch.image, batch.brain, batch.keys)
            mixed = model.reconstruct_member(
                batch.image, batch.brain, batch.keys, torch.tensor([0, model.members - 1, 0])
            )
        assert members.shape == (model.members, 3, contrasts, SIZE, SIZE)
        assert members.dtype == torch.float32
        assert float(members.min()) >= -1
        assert float(members.max()) <= 1
        for row, member in enumerate((0, model.members - 1, 0)):
            torch.testing.assert_close(mixed[row], members[member, row], atol=1e-4, rtol=0)

    def test_a_reconstruction_for_training_is_drawn_by_the_key_of_a_slice(
        self, family: str, contrasts: int, prepared: list[Prepared]
    ) -> None:
        model, batch = make(family, contrasts).eval(), some_batch(prepared[0], 4, contrasts)
        with torch.inference_mode():
            members = model.reconstruct(batch.image, batch.brain, batch.keys)
            known_level = model.reconstruct_for_training(batch.image, batch.brain, batch.keys, "inference")
            any_level = model.reconstruct_for_training(batch.image, batch.brain, batch.keys, "all")
            alone = model.reconstruct_for_training(batch.image[2:3], batch.brain[2:3], batch.keys[2:3], "all")
        assert all(min(float((known_level[row] - m[row]).abs().max()) for m in members) < 1e-4 for row in range(4))
        torch.testing.assert_close(alone[0], any_level[2], atol=1e-4, rtol=0)
        for drawn in (known_level, any_level):
            assert drawn.shape == batch.image.shape
            assert drawn.dtype == torch.float32
            assert float(drawn.abs().max()) <= 1

    def test_the_anomaly_map_lies_in_the_brain(self, family: str, contrasts: int, prepared: list[Prepared]) -> None:
        model, batch = make(family, contrasts).eval(), some_batch(prepared[0], 2, contrasts)
        with torch.inference_mode():
            members = model.reconstruct(batch.image, batch.brain, batch.keys)
            for kind in ("ssim", "absolute", "positive", "negative"):
                residual = Residual(kind=kind, combine="geometric")
                values = model.anomaly_map(batch.image, batch.valid, batch.brain, members, residual)
                assert values.shape == (2, SIZE, SIZE)
                assert float(values.min()) >= 0
                assert float(values.max()) <= 1
                assert not values[~batch.brain].any()


@pytest.mark.parametrize("contrasts", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
class TestContract:
    """What every family promises, trained or not."""

    def test_a_slice_alone_and_in_a_batch_agrees(self, family: str, contrasts: int, prepared: list[Prepared]) -> None:
        model, batch = make(family, contrasts).eval(), some_batch(prepared[0], 5, contrasts)
        rows = [some_rows(batch, [row]) for row in range(5)]
        with torch.inference_mode():
            together = outcome(model, batch)
            backwards = outcome(model, some_rows(batch, [4, 3, 2, 1, 0])).flip(1)
            torch.testing.assert_close(backwards, together, atol=1e-4, rtol=0)
            for row, alone in enumerate(rows):
                torch.testing.assert_close(outcome(model, alone)[:, 0], together[:, row], atol=1e-4, rtol=0)
            features = model.features(batch.image, batch.brain, batch.keys)
            assert (features is None) == (family in WITHOUT_IMAGE)
            if features is not None:
                assert features.shape[0] == 5
                assert features.dim() == 2
                for row, alone in enumerate(rows):
                    feature = model.features(alone.image, alone.brain, alone.keys)
                    assert feature is not None
                    torch.testing.assert_close(feature[0], features[row], atol=1e-4, rtol=0)

    def test_noise_belongs_to_the_key_of_a_slice(self, family: str, contrasts: int, prepared: list[Prepared]) -> None:
        """Published mistake: one noise field repeated over the whole batch."""
        model, sample = make(family, contrasts), some_batch(prepared[0], 1, contrasts)
        twins = Batch.stack([sample, sample])

        def loss(batch: Batch, *keys: int) -> float:
            with torch.no_grad():
                return float(sum(model.loss(batch, torch.tensor(keys), p.name)["loss"] for p in model.players()))

        first, second = loss(sample, 11), loss(sample, 12)
        assert first == loss(sample, 11)
        assert (abs(first - second) > 1e-5) == (family not in NOISELESS)
        both = loss(twins, 11, 12)
        if family in PARTS:  # a part counts by its voxels in the brain
            assert min(first, second) < both < max(first, second)
        else:
            assert both == pytest.approx((first + second) / 2, abs=1e-5, rel=1e-6)

    def test_global_generators_are_untouched(self, family: str, contrasts: int, prepared: list[Prepared]) -> None:
        model, batch = make(family, contrasts), some_batch(prepared[0], 2, contrasts)
        before = generators()
        model.loss(batch, batch.keys, model.players()[0].name)
        outcome(model, batch)
        model.features(batch.image, batch.brain, batch.keys)
        assert generators() == before

    def test_the_input_is_corrupted_and_the_target_is_the_healthy_slice(
        self, family: str, contrasts: int, prepared: list[Prepared]
    ) -> None:
        model, batch = make(family, contrasts), some_batch(prepared[0], 2, contrasts)
        with torch.no_grad():
            same = float(model.loss(batch, batch.keys, model.players()[-1].name)["loss"])
            batch.healthy = (batch.healthy + 0.3).clamp(-1, 1)
            assert float(model.loss(batch, batch.keys, model.players()[-1].name)["loss"]) != same

    def test_train_mode_computes_what_evaluation_mode_does(
        self, family: str, contrasts: int, prepared: list[Prepared]
    ) -> None:
        """Published mistake: a frozen network in train mode drifts. No dropout, no BatchNorm but in a frozen network
        that stays in evaluation mode: the mode is nothing."""
        model, batch = make(family, contrasts), some_batch(prepared[0], 2, contrasts)
        norms = [part for part in model.train().modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
        assert family in WITHOUT_IMAGE or not norms
        assert not any(part.training or part.weight.requires_grad for part in norms)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with torch.no_grad():
            model.loss(batch, batch.keys, model.players()[0].name)
            training = outcome(model, batch)
            evaluation = outcome(model.eval(), batch)
        torch.testing.assert_close(training, evaluation, atol=0, rtol=0)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_what_a_contrast_does_not_cover_is_not_learnt(
        self, family: str, contrasts: int, prepared: list[Prepared]
    ) -> None:
        model, batch = make(family, contrasts), some_batch(prepared[0], 2, contrasts)
        batch.valid[:, -1, : SIZE // 2] = False
        batch.image = torch.where(batch.valid, batch.image, -1.0)
        batch.healthy = batch.image.clone().requires_grad_()
        for player in model.players():
            draws = [batch.keys + draw for draw in range(PARTS.get(family, 1))]
            loss = torch.stack([model.loss(batch, keys, player.name)["loss"] for keys in draws]).sum()
            (gradient,) = torch.autograd.grad(loss, batch.healthy, allow_unused=True)
            assert (gradient is None) == (player.name in TARGETLESS)
            if gradient is not None:
                assert not gradient[~batch.valid].any()
                assert (gradient[batch.valid] != 0).float().mean() > 0.9
        with torch.inference_mode():
            values = outcome(model.eval(), batch)
            if family in WITH_IMAGE:
                residual = Residual(kind="absolute")
                values = model.anomaly_map(batch.image, batch.valid, batch.brain, values, residual)[None]
        if contrasts == 1:
            assert not values[0, :, : SIZE // 2].any()

    def test_every_weight_belongs_to_a_player_and_learns(
        self, family: str, contrasts: int, prepared: list[Prepared]
    ) -> None:
        model, batch = make(family, contrasts), some_batch(prepared[0], 2, contrasts)
        owned = [weight for player in model.players() for weight in model.parameters_of(player.name)]
        assert len({id(weight) for weight in owned}) == len(owned)
        learnt = [weight for weight in model.parameters() if weight.requires_grad]
        assert {id(weight) for weight in owned} == {id(weight) for weight in learnt}
        assert family in WITHOUT_IMAGE or len(learnt) == len(list(model.parameters()))
        for player in model.players():
            with model.learning(player.name):
                model.loss(batch, batch.keys, player.name)["loss"].backward()
            with_gradient = {id(weight) for weight in model.parameters() if weight.grad is not None}
            assert with_gradient == {id(weight) for weight in model.parameters_of(player.name)}
            assert all(torch.isfinite(weight.grad).all() for weight in model.parameters_of(player.name))
            model.zero_grad(set_to_none=True)
        assert all(weight.requires_grad for weight in owned)

    def test_the_state_holds_all_that_was_learnt(self, family: str, contrasts: int, prepared: list[Prepared]) -> None:
        model, batch = make(family, contrasts).eval(), some_batch(prepared[0], 2, contrasts)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.01
        loaded = make(family, contrasts).eval()
        loaded.load_state_dict(model.state_dict(), strict=True)
        with torch.inference_mode():
            first, second = (outcome(m, batch) for m in (model, loaded))
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("family", "changes", "size"),
    [
        ("ddpm", {"widths": [24, 32]}, 32),
        ("ddpm", {"widths": []}, 32),
        ("ddpm", {"levels": [1000]}, 32),
        ("ddpm", {"levels": []}, 32),
        ("ddpm", {"train_levels": [400, 400]}, 32),
        ("ddpm", {}, 33),
        ("ddpm", {"widths": [16, 16, 16], "unshuffle": 4}, 40),
        ("dae", {"width": 12}, 32),
        ("dae", {"depth": 9}, 32),
        ("ae", {"width": 12}, 32),
        ("ae", {}, 34),
        ("vae", {"latent": 0}, 32),
        ("vae", {"kl": -1.0}, 32),
        ("fae", {"width": 12}, 32),
        ("rd", {"embedding": 0}, 32),
        ("pddpm", {"levels": [1000]}, 32),
        ("pddpm", {}, 33),
        ("fanogan", {"latent": 0}, 32),
        ("fanogan", {}, 34),
        ("infill", {"widths": [24, 32]}, 32),
        ("infill", {"widths": []}, 32),
        ("infill", {"threshold": 0.0}, 32),
        ("infill", {}, 33),
    ],
)
def test_impossible_configurations_are_refused_with_a_sentence(family: str, changes: dict, size: int) -> None:
    with pytest.raises(ConfigError, match=r"\.$"):
        make(family, size=size, **changes)


class TestForwardProcess:
    """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n."""

    def test_cosine_schedule(self) -> None:
        signal = make("ddpm").signal.numpy()
        step = np.arange(1001) / 1000
        share = np.cos((step + 0.008) / 1.008 * np.pi / 2) ** 2
        beta = np.minimum(1 - share[1:] / share[:-1], 0.999)
        np.testing.assert_allclose(signal, np.cumprod(1 - beta), atol=1e-5)
        # Nichol and Dhariwal, arXiv 2102.09672, eq. 17, by a pocket calculator: t / T = 0.25 and 0.5.
        assert signal[249] == pytest.approx(0.847_00, abs=1e-4)
        assert signal[499] == pytest.approx(0.493_84, abs=1e-4)

    def test_linear_schedule(self) -> None:
        signal = make("ddpm", betas="linear").signal.numpy()
        np.testing.assert_allclose(signal, np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), rtol=2e-3)
        assert signal[0] == pytest.approx(0.9999, abs=1e-6)

    def test_noised_slices(self, prepared: list[Prepared]) -> None:
        model, batch = make("ddpm"), some_batch(prepared[0], 3)
        level = torch.tensor([0, 250, 999])
        noised = model.add_noise(batch.image, level, batch.keys)
        noise = noise_fields("simplex", batch.keys, (1, SIZE, SIZE))
        for row, t in enumerate(level.tolist()):
            abar = float(model.signal[t])
            expected = abar**0.5 * batch.image[row] + (1 - abar) ** 0.5 * noise[row]
            torch.testing.assert_close(noised[row], expected, atol=1e-6, rtol=0)

    def test_levels_of_training_fill_their_range(
        self, prepared: list[Prepared], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, sample = make("ddpm", train_levels=[100, 400]), some_batch(prepared[0], 1)
        seen: list[int] = []
        monkeypatch.setattr(model, "denoise", lambda x, level, _: seen.extend(level.tolist()) or x)
        model.loss(Batch.stack([sample] * 300), torch.arange(300))
        assert min(seen) >= 100
        assert max(seen) < 400
        assert len(set(seen)) > 150
        assert np.mean(seen) == pytest.approx(250, abs=20)

    @pytest.mark.parametrize(
        ("levels", "least", "most", "different"), [("inference", 100, 200, (2, 2)), ("all", 50, 399, (150, 300))]
    )
    def test_levels_of_the_reconstructions_that_stage_2_learns_beside(
        self,
        levels: Any,
        least: int,
        most: int,
        different: tuple[int, int],
        prepared: list[Prepared],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Stage 2 saw the levels of inference alone; the paper draws t from the whole range."""
        model, sample = make("ddpm", train_levels=[50, 400]), some_batch(prepared[0], 1)
        many = Batch.stack([sample] * 400)
        seen: list[int] = []
        monkeypatch.setattr(model, "denoise", lambda x, level, _: seen.extend(level.tolist()) or x)
        model.reconstruct_for_training(many.image, many.brain, torch.arange(400), levels)
        assert min(seen) >= least
        assert max(seen) <= most
        assert different[0] <= len(set(seen)) <= different[1]
        assert np.mean(seen) == pytest.approx((least + most + 1) / 2, abs=20)

    def test_a_member_is_keyed_by_its_level_and_repeat(self, prepared: list[Prepared]) -> None:
        batch = some_batch(prepared[0], 2)

        def reconstruct(**changes: Any) -> torch.Tensor:
            with torch.inference_mode():
                return make("ddpm", **changes).eval().reconstruct(batch.image, batch.brain, batch.keys)

        both, high, twice = reconstruct(), reconstruct(levels=[200]), reconstruct(levels=[200], repeats=2)
        torch.testing.assert_close(high[0], both[1], atol=1e-5, rtol=0)
        torch.testing.assert_close(twice[0], high[0], atol=1e-5, rtol=0)
        assert float((twice[1] - twice[0]).abs().max()) > 1e-3

    def test_an_untrained_network_with_skip_returns_the_noised_slice(self, prepared: list[Prepared]) -> None:
        batch, level = some_batch(prepared[0], 2), torch.tensor([100, 300])
        model = make("ddpm", skip=True).eval()
        noised = model.add_noise(batch.image, level, batch.keys)
        with torch.no_grad():
            assert torch.equal(model.denoise(noised, level, batch.image), noised)
            # The rest of the network starts as it does without.
            different = {k for k, v in make("ddpm").state_dict().items() if not torch.equal(v, model.state_dict()[k])}
            assert different == {"network.conv_out.weight", "network.conv_out.bias"}
            torch.nn.init.normal_(model.network.conv_out.weight)
            assert float((model.denoise(noised, level, batch.image) - noised).abs().max()) > 1e-3

    def test_without_skip_nothing_is_added(self, prepared: list[Prepared]) -> None:
        batch, level = some_batch(prepared[0], 2), torch.tensor([100, 300])
        model = make("ddpm").eval()
        folded = torch.nn.functional.pixel_unshuffle(batch.image, 2)
        with torch.no_grad():
            expected = torch.nn.functional.pixel_shuffle(model.network(folded, level).sample, 2)
            assert torch.equal(model.denoise(batch.image, level, batch.image), expected)

    def test_no_condition_at_first_then_the_code_of_the_slice(self, prepared: list[Prepared]) -> None:
        model, batch = make("ddpm", condition="small").eval(), some_batch(prepared[0], 2)
        level = torch.tensor([100, 100])
        with torch.no_grad():
            first = model.denoise(batch.image, level, batch.image)
            torch.testing.assert_close(model.denoise(batch.image, level, -batch.image), first, atol=0, rtol=0)
            torch.nn.init.normal_(model.encoder.to_width.weight)
            assert float((model.denoise(batch.image, level, -batch.image) - first).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
class TestNoise:
    @given(key=st.integers(0, 2**62), height=st.integers(9, 60), width=st.integers(9, 60))
    @settings(max_examples=15, deadline=None)
    def test_mean_0_and_variance_1_in_every_field(self, kind: Any, key: int, height: int, width: int) -> None:
        fields = noise_fields(kind, torch.tensor([key, key + 1]), (2, height, width))
        assert fields.shape == (2, 2, height, width)
        assert float(fields.mean(dim=(2, 3)).abs().max()) < 1e-4
        torch.testing.assert_close(fields.var(dim=(2, 3), correction=0), torch.ones(2, 2), atol=1e-3, rtol=0)

    def test_a_key_owns_its_field(self, kind: Any) -> None:
        fields = noise_fields(kind, torch.tensor([4, 5, 4]), (2, 48, 48))
        assert torch.equal(fields[0], fields[2])
        assert torch.equal(fields[1:2], noise_fields(kind, torch.tensor([5]), (2, 48, 48)))
        correlation = np.corrcoef(fields[:2].reshape(4, -1).numpy())
        # Coarse fields of few cells correlate by chance, but two slices or contrasts never share one.
        assert np.abs(correlation - np.eye(4)).max() < 0.8


def _correlation(kind: Any, lag: int) -> float:
    """Mean correlation of a field with itself moved by ``lag`` pixels, over 40 fields."""
    fields = noise_fields(kind, torch.arange(40), (1, 96, 96)).numpy()[:, 0]
    return float(np.mean([np.corrcoef(f[lag:].ravel(), f[:-lag].ravel())[0, 1] for f in fields]))


def test_coarse_noise_has_long_wavelengths() -> None:
    assert abs(_correlation("gaussian", 4)) < 0.02
    assert _correlation("simplex", 4) > 0.6
    assert _correlation("pyramid", 4) > 0.4
    # A longest wavelength of 64 pixels: half of it away, the field has turned.
    assert _correlation("simplex", 32) < 0.1


def test_simplex_noise_vanishes_on_its_lattice_and_is_continuous() -> None:
    order = rng.uniform(torch.tensor([1]), (256,)).argsort(dim=-1)
    i, j = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    x, y = i - (i + j) * _UNSKEW, j - (i + j) * _UNSKEW
    assert float(_simplex_2d(x[None] + 1e-5, y[None] + 1e-5, order).abs().max()) < 1e-3
    along = torch.linspace(0, 20, 20_001)
    line = _simplex_2d(along[None, None], (0.37 * along + 0.1)[None, None], order)[0, 0]
    assert float(line.diff().abs().max()) < 0.01
    assert 0.5 < float(line.abs().max()) <= 1.0


class TestCoarseNoise:
    def test_only_the_foreground_is_corrupted_at_the_stated_strength(self, prepared: list[Prepared]) -> None:
        model, batch = make("dae", deviation=0.2), some_batch(prepared[0], 4)
        change = model.corrupt(batch.image, batch.keys) - batch.image
        foreground = batch.image > BACKGROUND + 1e-3
        assert not change[~foreground].any()
        # A bilinear field keeps 4/9 of the variance of its cells: 0.4 x 2/3 on the model's range of 2.
        assert float(change[foreground].std()) == pytest.approx(0.4 * 2 / 3, rel=0.25)

    def test_a_roll_moves_the_cells(self, prepared: list[Prepared]) -> None:
        model = make("dae", cells=4)
        fields = model.corrupt(torch.zeros(6, 1, SIZE, SIZE), torch.arange(6))[:, 0]
        borders = {int(field.diff(dim=0).diff(dim=0).abs().sum(dim=1).argmax()) % (SIZE // 4) for field in fields}
        assert len(borders) > 1


class TestVariationalAutoencoder:
    def test_the_divergence_is_that_of_the_codes_from_a_standard_normal(self, prepared: list[Prepared]) -> None:
        model, batch = make("vae", kl=0.5).eval(), some_batch(prepared[0], 3)
        with torch.no_grad():
            losses = model.loss(batch, batch.keys)
            mean, log_variance = model.encode(batch.image)
        normal = torch.distributions.Normal
        codes = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0))
        torch.testing.assert_close(losses["divergence"], codes.sum(dim=1).mean())
        torch.testing.assert_close(losses["loss"], losses["l1"] + 0.5 * losses["divergence"])

    def test_training_draws_a_code_and_inference_uses_the_mean(self, prepared: list[Prepared]) -> None:
        model, batch = make("vae").eval(), some_batch(prepared[0], 2)
        with torch.no_grad():
            first, second = (model.reconstruct(batch.image, batch.brain, keys) for keys in (batch.keys, batch.keys + 1))
            mean, _ = model.encode(batch.image)
            torch.testing.assert_close(first[0], model.decoder(mean).clamp(-1, 1))
            drawn = [float(model.loss(batch, keys)["l1"]) for keys in (batch.keys, batch.keys + 1)]
        assert torch.equal(first, second)
        assert drawn[0] != drawn[1]


@pytest.mark.parametrize("family", ["ae", "vae", "fanogan"])
def test_nothing_of_a_slice_bypasses_its_code(
    family: str, prepared: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = make(family, latent=3).eval(), some_batch(prepared[0], 2)
    encoder = model.encoder
    with torch.no_grad():
        different = model.reconstruct(batch.image, batch.brain, batch.keys)[0]
        assert model.features(batch.image, batch.brain, batch.keys).shape == (2, 3)
        monkeypatch.setattr(encoder, "forward", lambda image: encoder.layers(image[:1]).expand(2, -1))
        same = model.reconstruct(batch.image, batch.brain, batch.keys)[0]
    assert not torch.equal(different[0], different[1])
    assert torch.equal(same[0], same[1])


def test_one_map_of_the_mean_reconstruction(prepared: list[Prepared]) -> None:
    """The paper's order; deviations of the members that cancel each other leave no residual."""
    model, batch = make("ddpm").eval(), some_batch(prepared[0], 2)
    noise = 0.2 * torch.randn(batch.image.shape, generator=torch.Generator().manual_seed(0))
    middle = batch.image.clamp(-0.7, 0.7)
    members = torch.stack([middle + noise.clamp(-0.3, 0.3), middle - noise.clamp(-0.3, 0.3)])
    for kind in ("ssim", "absolute"):
        found, mean = (
            model.anomaly_map(batch.image, batch.valid, batch.brain, members, Residual(kind=kind, combine=combine))
            for combine in ("reconstruction", "arithmetic")
        )
        expected = residual_map(batch.image, middle, kind, batch.valid) * batch.brain
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert float(mean[batch.brain].mean()) > float(found[batch.brain].mean()) + 0.02


def _count(model: torch.nn.Module) -> float:
    return sum(weight.numel() for weight in model.parameters()) / 1e6


def _on_paper(name: str) -> Any:
    """The network of a shipped config, without memory for its weights."""
    run = configs.load(name, kind="reconstructor")
    with torch.device("meta"):
        model = plugins.load("reconstructors", run.model.name).Model(run.model, 1, run.anatomy.size)
    return run, model


def test_the_small_config_has_under_2_million_weights() -> None:
    run, model = _on_paper("restoration")
    assert run.model.condition != "none"
    assert 1.5 < _count(model) < 2.0


def test_the_paper_config_is_that_of_the_paper() -> None:
    run, model = _on_paper("cddpm")
    assert _count(model.network) == pytest.approx(32, abs=1.5)
    assert _count(model.encoder) == pytest.approx(24.6, abs=1.5)
    assert (run.model.noise, run.model.betas, run.model.levels) == ("simplex", "cosine", (250, 500, 750))
    assert run.model.train_levels == (0, 1000)
    assert (run.residual.kind, run.residual.combine) == ("ssim", "reconstruction")
    assert run.mix.synthetic == 0
    assert run.model.outside_weight == 1


@pytest.mark.parametrize("family", ["ddpm", "pddpm"])
def test_a_loss_counts_what_is_outside_the_brain_as_the_config_says(
    family: str, tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = plugins.load("reconstructors", family)
    small = {"name": family, **TINY[family]}
    batch = some_batch(prepared_cases(tiny_cohort)[0], 2)
    weights: list[torch.Tensor] = []

    def noted(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        weights.append(weight)
        return reconstruction_l1(prediction, target, weight)

    monkeypatch.setattr(module, "reconstruction_l1", noted)
    brain = batch.brain.unsqueeze(1)
    for stated, outside in (({}, 0.25), ({"outside_weight": 1.0}, 1.0), ({"outside_weight": 0.5}, 0.5)):
        config = checked(module.Config, small | stated, "tests")
        assert ("outside_weight" in config.model_dump()) == bool(stated)  # so that keys of before stay
        module.Model(config, 1, batch.image.shape[-1]).loss(batch, batch.keys)
        counted = weights[-1] > 0  # of a pddpm, inside its box
        assert (counted & ~brain).any()
        assert (counted & brain).any()
        torch.testing.assert_close(weights[-1], torch.where(brain, 1.0, outside) * counted)


def test_the_dae_config_builds() -> None:
    run, model = _on_paper("dae")
    assert run.model.cells == 16
    assert model.members == 1


@pytest.mark.parametrize(("name", "millions"), [("ae", 2.2), ("vae", 2.8)])
def test_the_autoencoders_of_the_shipped_configs_are_small(name: str, millions: float) -> None:
    run, model = _on_paper(name)
    assert run.model.latent == 128
    assert run.residual.kind == "ssim"
    assert _count(model) == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("name", "family", "noise"),
    [("ddpm-gaussian", "ddpm", "gaussian"), ("ddpm-simplex", "ddpm", "simplex"), ("pddpm", "pddpm", "simplex")],
)
def test_the_diffusion_models_without_a_condition(name: str, family: str, noise: str) -> None:
    """The rows DDPM, AnoDDPM and pDDPM: the same network, levels and residual, and no painted anomalies."""
    run, model = _on_paper(name)
    assert (run.model.name, run.model.noise, run.model.condition) == (family, noise, "none")
    assert (run.model.widths, run.mix.synthetic) == (configs.load("restoration").model.widths, 0)
    assert run.model.levels == configs.load("cddpm").model.levels
    assert model.encoder is None


def test_the_gan_of_the_shipped_config_is_small() -> None:
    run, model = _on_paper("fanogan")
    assert run.model.latent == 128
    assert run.residual.kind == "ssim"
    assert _count(model) == pytest.approx(2.8, abs=0.05)


def test_no_condition_encoder_downloads_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with torch.device("meta"):
        assert ConditionEncoder("resnet50", 2, 64)(torch.zeros(1, 2, 64, 64)).shape == (1, 64)
