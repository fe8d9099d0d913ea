"""Phases of a training, and the families that are more than one network's loss: f-AnoGAN and the patched diffusion."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hybriduad.core import plugins
from hybriduad.core.types import Batch
from hybriduad.reconstructors._base import Player, Reconstructor

SIZE = 32


def build(family: str, **values: Any) -> Any:
    module = plugins.load("reconstructors", family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return module.Model(module.Config(name=family, **values), 1, SIZE)


def blobs(count: int, seed: int = 0) -> Batch:
    """Discs on background, with a place, a radius and a brightness of their own."""
    drawn = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    centre, radius = 12 + 8 * drawn[:, :2, None, None], 5 + 5 * drawn[:, 2, None, None]
    disc = (row - centre[:, 0]) ** 2 + (column - centre[:, 1]) ** 2 < radius**2
    image = torch.where(disc, drawn[:, 3, None, None], -1.0)[:, None]
    nothing = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    number = torch.arange(count)
    return Batch(
        image=image,
        healthy=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        brain=disc,
        lesion=nothing,
        ignore=nothing,
        target=nothing.float(),
        spacing_mm=torch.ones(count, 2),
        keys=number + 1000 * seed,
        case_index=number,
        slice_index=number,
    )


class TestPhases:
    @pytest.mark.parametrize("steps", [2, 3, 7, 10, 2000])
    def test_are_adjoining_and_end_with_the_training(self, steps: int) -> None:
        first, second = plugins.load("reconstructors", "fanogan").Model.phase_steps(steps)
        assert [*first, *second] == list(range(steps))
        assert abs(len(first) - 0.6 * steps) <= 0.5

    @pytest.mark.parametrize("family", plugins.names("reconstructors"))
    def test_shares_are_of_the_phases_and_no_player_occurs_twice(self, family: str) -> None:
        model: type[Reconstructor] = plugins.load("reconstructors", family).Model
        assert len(model.shares) == len(model.phases)
        assert sum(model.shares) == pytest.approx(1)
        names = [player.name for player in model.players()]
        assert len(set(names)) == len(names)

    def test_most_families_have_one(self) -> None:
        assert plugins.load("reconstructors", "ddpm").Model.phases == ((Player("model"),),)
        assert Reconstructor.phase_steps(13) == (range(13),)


class TestGan:
    def test_a_critic_is_punished_by_how_far_its_slope_is_from_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, batch = build("fanogan", width=8, depth=2, latent=8), blobs(3)
        monkeypatch.setattr(model.critic, "forward", lambda image: 3.0 * image.flatten(1).sum(dim=1, keepdim=True))
        losses = model.loss(batch, batch.keys, "critic")
        # The slope of three times the sum is 3 at every voxel.
        assert float(losses["penalty"]) == pytest.approx((3.0 * SIZE - 1.0) ** 2, rel=1e-4)
        assert float(losses["loss"]) == pytest.approx(
            10 * float(losses["penalty"]) - float(losses["distance"]), rel=1e-4
        )

    def test_the_losses_are_the_same_where_no_gradient_is_asked_for(self) -> None:
        model, batch = build("fanogan", width=8, depth=2, latent=8), blobs(3)
        for player in model.players():
            learning = {k: float(v.detach()) for k, v in model.loss(batch, batch.keys, player.name).items()}
            with torch.no_grad():
                shown = {k: float(v.detach()) for k, v in model.loss(batch, batch.keys, player.name).items()}
            assert shown == pytest.approx(learning, rel=1e-4, abs=1e-6)

    def test_codes_of_updates_differ(self) -> None:
        model, batch = build("fanogan", width=8, depth=2, latent=8), blobs(3)
        with torch.no_grad():
            first, second = (model.loss(batch, batch.keys + key, "critic") for key in (0, 1))
        assert float(first["distance"].detach()) != float(second["distance"].detach())

    def test_encoder_and_generator_learn_the_shape_of_blobs(self) -> None:
        """A little, in seconds: the encoder's loss falls, beside a generator that has learnt as shortly."""
        model = build("fanogan", width=16, depth=2, latent=16).train()
        voxels: list[float] = []
        for players, steps in zip(model.phases, model.phase_steps(60), strict=True):
            optimisers = {p: torch.optim.Adam(model.parameters_of(p.name), lr=3e-3, betas=p.betas) for p in players}
            for step in steps:
                batch = blobs(8, seed=1 + step)
                for player, optimiser in optimisers.items():
                    for update in range(player.updates):
                        with model.learning(player.name):
                            optimiser.zero_grad()
                            losses = model.loss(batch, batch.keys + 8 * update, player.name)
                            losses["loss"].backward()
                            optimiser.step()
                voxels += [float(losses["voxels"].detach())] if "voxels" in losses else []
        assert sum(voxels[-5:]) < 0.6 * sum(voxels[:5])


PATCHED: dict[str, Any] = {"widths": (16,), "blocks": 1, "unshuffle": 2, "levels": (250,)}


class TestPatchedDiffusion:
    def test_one_quarter_is_noised_in_training_and_alone_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, batch = build("pddpm", **PATCHED), blobs(40)
        seen: list[torch.Tensor] = []
        monkeypatch.setattr(model, "denoise", lambda x, *_: seen.append(x) or torch.zeros_like(x).requires_grad_())
        healthy = batch.healthy.clone().requires_grad_()
        batch.healthy = healthy
        model.loss(batch, batch.keys)["loss"].backward()
        quarters = torch.stack([seen[0] != batch.image, healthy.grad != 0]).unfold(3, 16, 16).unfold(4, 16, 16)
        share = quarters.float().mean(dim=(2, 5, 6)).flatten(2)  # of each quarter's voxels
        for noised, counted in zip(*share, strict=True):
            assert sorted(noised.tolist())[:3] == [0, 0, 0]
            assert float(noised.max()) == 1
            assert torch.equal(noised, counted)
        assert set(share[0].argmax(dim=1).tolist()) == {0, 1, 2, 3}

    def test_every_quarter_is_denoised_beside_the_clean_rest_and_stitched(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, batch = build("pddpm", **PATCHED).eval(), blobs(3)
        seen: list[torch.Tensor] = []

        def mark(noised: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            seen.append(noised)
            return torch.full_like(noised, len(seen) / 10)

        monkeypatch.setattr(model, "denoise", mark)
        (stitched,) = model.reconstruct(batch.image, batch.brain, batch.keys)
        half = SIZE // 2
        corners = [stitched[:, 0, i, j] for i in (0, half) for j in (0, half)]
        for number, (corner, noised) in enumerate(zip(corners, seen, strict=True), start=1):
            assert torch.equal(corner, torch.full_like(corner, number / 10))
            changed = noised != batch.image
            assert torch.equal(changed, (stitched == stitched.new_tensor(number / 10)))
        assert stitched.unique().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
