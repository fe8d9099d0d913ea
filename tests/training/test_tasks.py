"""What a training step gives its networks."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import DETECTOR, prepared_cases, some_batch

from hybriduad.config import files as configs
from hybriduad.core import plugins
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
