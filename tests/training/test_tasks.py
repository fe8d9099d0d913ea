"""What a training step gives its networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DETECTOR, prepared_cases, some_batch

from hybriduad.config import files as configs
from hybriduad.core import plugins
from hybriduad.core.types import BACKGROUND, Batch
from hybriduad.networks.segmenter import Segmenter
from hybriduad.training.tasks import SegmentationTask


def test_a_segmenter_learns_beside_the_image_itself_where_a_contrast_is_missing(tiny_cohort: Path) -> None:
    """What a reconstructor makes of it was never learnt, and inference does not show it either."""
    batch = some_batch(prepared_cases(tiny_cohort)[0], 2, contrasts=2)
    batch.valid[:, 1, :16] = False
    batch.image = torch.where(batch.valid, batch.image, -1.0)
    run = configs.parse(DETECTOR, "tests", "detector")
    family = plugins.load("reconstructors", "ddpm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = family.Model(family.Config(name="ddpm", widths=(16,), blocks=1, unshuffle=2, levels=(250,)), 2, 32)
        task = SegmentationTask(run, Segmenter(run.segmenter, 2), model.eval())
    drawn = task._reconstruction(batch)
    assert drawn is not None
    assert torch.equal(drawn[~batch.valid], batch.image[~batch.valid])
    assert (drawn - batch.image)[batch.valid].abs().mean() > 0.05


DRAEM: dict[str, Any] = {
    **DETECTOR,
    "segmenter": {
        "layout": "draem",
        "inputs": ["image", "reconstruction"],
        "encoder": "tu-resnet18",
        "decoder_channels": [32, 16, 16],
    },
    "loss": {"dice": 0.0, "false_alarm": 0.0, "focal": 2.0},
}


def blobs(count: int) -> Batch:
    """Discs of tissue of several shades with a bright square painted into them."""
    generator = torch.Generator().manual_seed(1)
    place = torch.arange(32) - 15.5
    disc = (place[:, None] ** 2 + place**2).sqrt()
    brain = (disc < 12).expand(count, 32, 32)
    shade = torch.rand((count, 1, 1, 1), generator=generator) * 0.6 - 0.5
    healthy = torch.where(brain[:, None], shade + 0.3 * torch.cos(disc / 3), torch.tensor(BACKGROUND))
    lesion = torch.zeros_like(brain)
    for number, (row, column) in enumerate(torch.randint(8, 18, (count, 2), generator=generator).tolist()):
        lesion[number, row : row + 6, column : column + 6] = True
    image = torch.where(lesion[:, None], 0.9, healthy)
    nothing = torch.zeros_like(lesion)
    index = torch.arange(count)
    valid = torch.ones_like(image, dtype=torch.bool)
    return Batch(
        image, healthy, valid, brain, lesion, nothing, lesion.float(), torch.ones(count, 2), index, index, index
    )


def draem() -> SegmentationTask:
    run = configs.parse(DRAEM, "tests", "detector")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return SegmentationTask(run, Segmenter(run.segmenter, 1), None)


def test_a_few_steps_restore_what_was_painted_over_and_outline_it() -> None:
    task, batch = draem(), blobs(8)
    optimiser = torch.optim.AdamW(task.parameters(), lr=2e-3)
    course: list[dict[str, float]] = []
    for _ in range(40):
        losses = task.losses(batch)
        course.append({name: float(value.detach()) for name, value in losses.items()})
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert set(course[0]) == {"loss", "cross_entropy", "dice", "false_alarm", "restoration"}
    assert course[0]["loss"] == pytest.approx(course[0]["cross_entropy"] + course[0]["restoration"])
    assert course[-1]["restoration"] < 0.5 * course[0]["restoration"]
    assert course[-1]["cross_entropy"] < 0.5 * course[0]["cross_entropy"]
    with torch.no_grad():
        restored = task.segmenter.restored(batch.image)
    inside = batch.lesion[:, None]
    # Nearer to the tissue that was there than to what is shown.
    assert (restored - batch.healthy)[inside].abs().mean() < 0.5 * (restored - batch.image)[inside].abs().mean()


def test_no_lesion_of_a_patient_is_restored() -> None:
    """What was there before it nobody knows; of a painted lesion it is known."""
    task, painted = draem(), blobs(4)
    labelled = replace(painted, healthy=painted.image)
    labelled.ignore = painted.lesion.roll(8, dims=1)
    both = Batch.stack([painted, labelled])
    both.valid[:, :, :4] = False
    received: list[torch.Tensor] = []
    restored = task.segmenter.restored

    def noted(image: torch.Tensor) -> torch.Tensor:
        # Of the outlines nothing comes back to it.
        result = restored(image).detach().requires_grad_()
        received.append(result)
        return result

    task.segmenter.restored = noted  # type: ignore[method-assign]
    task.losses(both)["restoration"].backward()
    (result,) = received
    assert result.grad is not None
    learnt = result.grad[:, 0] != 0
    unknown = torch.cat([torch.zeros_like(painted.lesion), labelled.lesion | labelled.ignore])
    assert not learnt[unknown].any()
    assert not learnt[~both.valid[:, 0]].any()
    assert learnt[both.valid[:, 0] & ~unknown].float().mean() > 0.9
    assert learnt[:4][painted.lesion].float().mean() > 0.9
