"""Filling: holes, what surrounds them, and that a hole's content has no say in its filling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from tiny import prepared_cases, some_batch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from hybriduad.config import files as configs
from hybriduad.config.strict import checked
from hybriduad.core import plugins
from hybriduad.core.types import Batch
from hybriduad.reconstructors._holes import SHARES, covers, drawn_covers, drawn_holes, places, surroundings, widened
from hybriduad.reconstructors.infill import COVERS, Config, Model

SIZE = 32
SPREAD = 0.1


def make(contrasts: int = 1, threshold: float = 2.0) -> Model:
    config = checked(Config, {"name": "infill", "widths": [16, 32], "unshuffle": 1, "threshold": threshold}, "tests")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Model(config, contrasts, SIZE).eval()


def disc(row: float, column: float, radius: float, size: int = SIZE) -> Tensor:
    rows, columns = np.mgrid[:size, :size]
    return torch.from_numpy((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


@pytest.fixture
def batch(tiny_cohort: Path) -> Batch:
    return some_batch(prepared_cases(tiny_cohort)[0], 3)


class TestHoles:
    def test_lie_in_the_brain_with_sizes_from_end_to_end(self) -> None:
        brain = disc(30, 34, 22, 64).expand(400, -1, -1)
        holes = drawn_holes(torch.arange(400), brain)
        assert not (holes & ~brain).any()
        share = holes.sum(dim=(1, 2)) / brain.sum(dim=(1, 2))
        assert float(share.min()) >= SHARES[0]
        assert float(share.max()) <= SHARES[1] + 1 / int(brain[0].sum())
        assert float((share < 0.02).float().mean()) > 0.1
        assert float((share > 0.12).float().mean()) > 0.1
        # All of the brain is asked for, not its middle alone.
        assert float(holes.float().mean(dim=0)[brain[0]].min()) > 0.02

    def test_are_drawn_by_their_key_alone(self) -> None:
        brain = torch.stack([disc(16, 16, 12), disc(14, 18, 9), disc(16, 16, 12)])
        keys = torch.tensor([5, 6, 7])
        together = drawn_holes(keys, brain)
        for row in range(3):
            alone = drawn_holes(keys[row : row + 1], brain[row : row + 1])
            assert torch.equal(alone[0], together[row])
        assert not torch.equal(together[0], together[2])

    def test_are_lumps_and_no_dust(self) -> None:
        brain = disc(32, 32, 24, 64).expand(60, -1, -1)
        holes = drawn_holes(torch.arange(60), brain).numpy()
        parts = [ndimage.label(hole)[1] for hole in holes]
        assert np.mean(parts) < 6
        assert 10 < sum(count == 1 for count in parts) < 50

    def test_squares_are_those_of_the_first_map_somewhere_in_the_brain(self) -> None:
        brain = disc(16, 16, 12).expand(200, -1, -1)
        keys = torch.arange(200)
        squares = drawn_covers(keys, brain, COVERS)
        assert not (squares & ~brain).any()
        assert torch.equal(drawn_covers(keys[7:8], brain[7:8], COVERS)[0], squares[7])
        asked = squares.float().mean(dim=0)[brain[0]]
        assert 0.1 < float(asked.min()) < float(asked.max()) < 0.4
        shapes = [disc(16, 16, 30).expand(200, -1, -1), brain]
        assert all(len({tuple(hole.flatten().tolist()) for hole in drawn_covers(keys, b, COVERS)}) > 50 for b in shapes)

    def test_a_slice_without_brain_has_none(self) -> None:
        brain = torch.stack([torch.zeros(SIZE, SIZE, dtype=torch.bool), disc(16, 16, 1)])
        holes = drawn_holes(torch.tensor([1, 2]), brain)
        assert not holes[0].any()
        assert 1 <= int(holes[1].sum()) <= 2


@pytest.mark.parametrize(("size", "parts"), [(32, 8), (96, 4), (40, 8), (36, 8)])
def test_covers_take_every_voxel_once(size: int, parts: int) -> None:
    patterns = list(covers(size, parts))
    assert torch.stack(patterns).sum(dim=0).eq(1).all()
    side = size // parts
    assert all(int(ndimage.label(pattern)[0].max()) > 1 for pattern in patterns)
    assert all(ndimage.binary_erosion(pattern, np.ones((side, side))).any() for pattern in patterns)


def test_widening_goes_as_far_as_the_margin() -> None:
    point = torch.zeros(1, 9, 9, dtype=torch.bool)
    point[0, 4, 2] = True
    wide = widened(point, 2)
    assert int(wide.sum()) == 25
    assert wide[0, 2:7, 0:5].all()


def test_surroundings_are_kept_and_continue_smoothly() -> None:
    ramp = torch.linspace(-1, 1, SIZE).expand(1, 1, SIZE, SIZE).clone()
    hole = disc(16, 16, 5)[None, None]
    guess = surroundings(torch.where(hole, 77.0, ramp), ~hole)
    assert torch.equal(guess[~hole], ramp[~hole])
    assert float((guess - ramp)[hole].abs().max()) < 0.3
    assert not surroundings(ramp, torch.zeros_like(hole)).any()


def test_places_run_from_end_to_end_of_a_brain_wherever_it_lies() -> None:
    brain = torch.stack([disc(10, 20, 8), disc(18, 14, 12), disc(0, 0, 0) & False])
    seen = places(brain)
    assert seen.shape == (3, 2, SIZE, SIZE)
    for row, (centre, radius) in enumerate([((10, 20), 8), ((18, 14), 12)]):
        torch.testing.assert_close(seen[row, :, centre[0], centre[1]], torch.zeros(2), atol=1e-5, rtol=0)
        assert float(seen[row, 0, centre[0] + radius, centre[1]]) == pytest.approx(1.0, abs=0.05)
        assert float(seen[row, 1, centre[0], centre[1] - radius]) == pytest.approx(-1.0, abs=0.05)
    assert torch.isfinite(seen).all()


class TestFilling:
    """What is in a hole has no influence on what is put there: the point of the family."""

    @pytest.mark.parametrize("contrasts", [1, 2])
    def test_a_hole_cannot_influence_its_filling(self, contrasts: int, batch: Batch) -> None:
        model = make(contrasts)
        image = batch.image.expand(-1, contrasts, -1, -1).contiguous()
        hole = drawn_holes(batch.keys, batch.brain)
        other = torch.where(
            hole.unsqueeze(1), torch.rand(image.shape, generator=torch.Generator().manual_seed(1)), image
        )
        with torch.inference_mode():
            first, second = model.fill(image, batch.brain, hole), model.fill(other, batch.brain, hole)
            beside = model.fill(torch.where(hole.unsqueeze(1), image, image + 0.1), batch.brain, hole)
        inside = hole.unsqueeze(1).expand_as(image)
        assert not torch.equal(image, other)
        for values, same in zip(first, second, strict=True):
            assert torch.equal(values, same)
        assert not torch.equal(first[0][inside], beside[0][inside])

    def test_no_voxel_of_the_first_map_comes_from_its_own_square(self, batch: Batch) -> None:
        model = make()
        square = next(iter(covers(SIZE, max(COVERS))))
        changed = torch.where(square & batch.brain.unsqueeze(1), -batch.image, batch.image)
        with torch.inference_mode():
            asked: list[Tensor] = []
            fill = model.fill

            def watched(image: Tensor, brain: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
                asked.append(hole)
                return fill(image, brain, hole)

            model.fill = watched  # type: ignore[method-assign]
            model.first_map(batch.image, batch.brain)
            pairs = [(fill(image, batch.brain, asked[0])[0]) for image in (batch.image, changed)]
        assert len(asked) == 4 * len(COVERS)
        for parts in range(len(COVERS)):
            covered = torch.stack(asked[4 * parts : 4 * parts + 4]).sum(dim=0)
            assert torch.equal(covered, batch.brain.long())
        assert torch.equal(*pairs)

    def test_the_loss_does_not_see_the_hole_either(self, batch: Batch) -> None:
        model = make()
        image = batch.image.clone().requires_grad_()
        batch.healthy, batch.image = batch.image, image
        (gradient,) = torch.autograd.grad(model.loss(batch, batch.keys)["loss"], image)
        untouched = (gradient == 0) & batch.brain.unsqueeze(1)
        least = SHARES[0] * batch.brain.sum(dim=(1, 2))
        assert (untouched.sum(dim=(1, 2, 3)) >= least).all()
        assert untouched.sum() < 0.3 * batch.brain.sum()


def oracle(model: Model, healthy: Tensor) -> None:
    """The network is replaced: it knows the healthy slice, and carries what is bright beside a hole a voxel into it."""

    def fill(image: Tensor, brain: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        known = (brain & ~hole).unsqueeze(1)
        excess = torch.where(known, image - healthy, 0.0)
        spill = avg_pool2d(excess, 3, 1, 1) / avg_pool2d(known.float(), 3, 1, 1).clamp_min(1e-6)
        return healthy + spill, torch.full_like(image, SPREAD)

    model.fill = fill  # type: ignore[method-assign]


class TestRegion:
    @pytest.fixture
    def brain(self) -> Tensor:
        return torch.stack([disc(16, 16, 13)] * 3)

    @pytest.fixture
    def healthy(self, brain: Tensor) -> Tensor:
        noise = torch.randn(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
        return torch.where(brain.unsqueeze(1), 0.03 * noise, -1.0)

    def test_a_bright_lesion_is_gone_and_the_rest_stays(self, brain: Tensor, healthy: Tensor) -> None:
        model = make()
        oracle(model, healthy)
        lesion = torch.stack([disc(12, 18, 5), disc(12, 18, 5) & False, disc(20, 20, 2)])
        image = torch.where(lesion.unsqueeze(1), 0.8, healthy)
        reconstruction = model.reconstruct(image, brain, torch.arange(3))[0]
        error = (reconstruction - healthy).abs()[:, 0]
        assert float(error[lesion].max()) < 0.02
        assert float(error[brain & ~widened(lesion, 3)].max()) < 0.1

    def test_the_region_grows_over_what_the_first_map_misses_and_shrinks_where_filling_and_scan_agree(
        self, brain: Tensor, healthy: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = make()
        oracle(model, healthy)
        lesion = disc(14, 18, 6).expand(3, -1, -1)
        image = torch.where(lesion.unsqueeze(1), 0.8, healthy)
        part = torch.stack([disc(14, 18, 3), disc(14, 18, 3) | disc(20, 8, 3), disc(14, 18, 3) & False])
        first = torch.where(part.unsqueeze(1), image - 1.0, image), torch.full_like(image, SPREAD)
        monkeypatch.setattr(model, "first_map", lambda image, brain: first)
        changed = (model.reconstruct(image, brain, torch.arange(3)) - image)[0, :, 0].abs() > 0.1
        assert torch.equal(changed[:2], lesion[:2])
        assert not changed[2].any()

    def test_where_nothing_stands_out_nothing_is_refilled(self, brain: Tensor, healthy: Tensor) -> None:
        model = make()
        oracle(model, healthy)
        holes: list[Tensor] = []
        fill = model.fill

        def watched(image: Tensor, brain: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
            holes.append(hole)
            return fill(image, brain, hole)

        model.fill = watched  # type: ignore[method-assign]
        model.reconstruct(healthy, brain, torch.arange(3))
        assert not torch.stack(holes[4 * len(COVERS) :]).any()

    def test_an_absent_contrast_does_not_count(self, brain: Tensor) -> None:
        model = make(2)
        image = torch.zeros(3, 2, SIZE, SIZE)
        image[1, 1] = -1.0
        filling = torch.full_like(image, 0.2)
        surprise = model.surprise(image, brain, filling, torch.full_like(image, SPREAD), brain)
        torch.testing.assert_close(surprise, torch.where(brain, 0.2 / SPREAD, 0.0))


def test_the_shipped_config_is_as_small_as_the_diffusion_model() -> None:
    run = configs.load("infill", kind="reconstructor")
    with torch.device("meta"):
        model = plugins.load("reconstructors", "infill").Model(run.model, 1, run.anatomy.size)
    assert (run.mix.healthy, run.mix.synthetic) == (1.0, 0.0)
    assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(1.66, abs=0.05)
