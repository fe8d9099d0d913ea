"""Feature autoencoder: structural differences in the features of a frozen network (FAE, arXiv 2208.10992).

The features of several levels, on a common grid, pass through a convolutional autoencoder that learnt those of healthy
slices. Lesions of the brightness of healthy tissue differ there, where they hardly do in an image. There is no image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hybriduad.core.types import Batch
from hybriduad.networks.scoring import SSIM_C1, SSIM_C2
from hybriduad.reconstructors._features import (
    CHANNELS,
    GROUPS,
    Extractor,
    ExtractorConfig,
    ExtractorReconstructor,
    convolved,
    distance_map,
    healthy_slices,
    mean_distance,
    resized,
)

SCALE = 0.05
"""From features to the range of images, for which the constants of SSIM are, so that faint features count little."""
WINDOW = 5
"""Side of the window of SSIM, in cells of the grid."""


class Config(ExtractorConfig):
    """``width``: channels of the autoencoder's first level; ``depth``: how often it halves the grid of features.

    ``weights``: a safetensors file of torchvision's resnet18 for the extractor; without it, random weights.
    """

    name: Literal["fae"]
    width: int = Field(64, ge=GROUPS, multiple_of=GROUPS)
    depth: int = Field(3, ge=1, le=5)

    @property
    def method(self) -> str:
        return "a feature autoencoder (FAE, arXiv:2208.10992)"


class Model(ExtractorReconstructor):
    """Features (B, C 256, H / 2, W / 2) -> features of a healthy slice."""

    config: Config
    extractor: Extractor

    def __init__(self, config: Config, contrasts: int, size: int) -> None:
        super().__init__(config, contrasts, size)
        channels = contrasts * sum(CHANNELS)
        widths = [config.width * (level + 1) for level in range(config.depth + 1)]
        self.entry = nn.Conv2d(channels, widths[0], 1)
        self.down = nn.ModuleList(convolved(before, after, stride=2) for before, after in pairwise(widths))
        self.up = nn.ModuleList(convolved(before, after) for before, after in pairwise(widths[::-1]))
        self.exit = nn.Conv2d(widths[0], channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        levels = [self.entry(features)]
        for block in self.down:
            levels.append(block(levels[-1]))
        hidden = levels.pop()
        for block in self.up:  # of a finer level only the grid is taken: nothing bypasses the narrowest
            hidden = block(resized(hidden, like=levels.pop()))
        reconstructed: Tensor = self.exit(hidden)
        return reconstructed

    def extract(self, image: Tensor) -> Tensor:
        """The features of all levels on the grid of the finest: (B, C 256, h, w), those of a contrast together."""
        stem, *deeper = (level.unflatten(1, (self.contrasts, -1)) for level in self.extractor(image))
        on_grid = [resized(level.flatten(1, 2), like=stem).unflatten(1, level.shape[1:3]) for level in deeper]
        return SCALE * torch.cat([stem, *on_grid], dim=2).flatten(1, 2).float()

    def _distance(self, features: Tensor, target: Tensor) -> Tensor:
        """How far features of a target are from those reconstructed from an image's: (B, C, h, w) in [0, 2].

        Not clipped here: what is furthest would have no gradient.
        """
        alike = similarity(target, self(features).float())
        return (1.0 - alike).unflatten(1, (self.contrasts, -1)).mean(dim=2)

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        distance = self._distance(self.extract(batch.image), self.extract(healthy_slices(batch)))
        return {"loss": mean_distance(distance, batch.valid)}

    def anomaly_map(self, image: Tensor, valid: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        features = self.extract(image)
        return distance_map(resized(self._distance(features, features), like=image), valid, brain)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of two stacks of features (B, D, H, W) up to about 1, at every cell: (B, D, H, W) in [-1, 1].

    Moments over windows of 5 x 5 cells that weigh the same, less of them at the border (DOI 10.1109/TIP.2003.819861).
    """

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)

    a, b = (values.contiguous(memory_format=torch.channels_last) for values in (a, b))  # a multiple of the speed
    mean_a, mean_b = mean(a), mean(b)
    variances = (mean(a * a) + mean(b * b) - mean_a.square() - mean_b.square()).clamp(min=0.0)
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a.square() + mean_b.square() + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variances + SSIM_C2)
