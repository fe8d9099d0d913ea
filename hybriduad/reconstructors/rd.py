"""Reverse distillation: a student learns to undo what a frozen teacher saw, from a few numbers (arXiv 2201.10703).

The teacher's features of three levels are joined into a narrow embedding, from which the student makes them again,
coarse to fine. It learnt that of healthy slices alone, so where it fails there may be a lesion. There is no image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hybriduad.core.types import Batch
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


class Config(ExtractorConfig):
    """``embedding``: channels between teacher and student, on a grid of a sixteenth of the slice.

    ``weights``: a safetensors file of torchvision's resnet18 for the teacher; without it, random weights.
    """

    name: Literal["rd"]
    embedding: int = Field(128, ge=GROUPS, multiple_of=GROUPS)

    @property
    def method(self) -> str:
        return "reverse distillation (arXiv:2201.10703)"


class Model(ExtractorReconstructor):
    """Features of three levels -> embedding -> the same features of a healthy slice."""

    config: Config
    extractor_name = "teacher"
    teacher: Extractor

    def __init__(self, config: Config, contrasts: int, size: int) -> None:
        super().__init__(config, contrasts, size)
        taught = [contrasts * count for count in CHANNELS]
        width = CHANNELS[-1]
        self.entries = nn.ModuleList(nn.Conv2d(count, width, 1) for count in taught)
        self.join = convolved(len(taught) * width, config.embedding, stride=2)
        widths = [config.embedding, *CHANNELS[::-1]]
        self.student = nn.ModuleList(convolved(before, after) for before, after in pairwise(widths))
        self.exits = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(widths[1:], taught[::-1], strict=True))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """The student's features from the teacher's, fine to coarse: (B, C channels, h, w) each."""
        grid = (levels[-1].shape[-2], levels[-1].shape[-1])
        entered = [entry(F.adaptive_avg_pool2d(x, grid)) for entry, x in zip(self.entries, levels, strict=True)]
        hidden = self.join(torch.cat(entered, dim=1))
        features: list[Tensor] = []
        for block, leave, level in zip(self.student, self.exits, levels[::-1], strict=True):
            hidden = block(resized(hidden, like=level))
            features.insert(0, leave(hidden))
        return features

    def _distances(self, levels: list[Tensor], target: list[Tensor]) -> list[Tensor]:
        """1 - cosine of the angle between a target's features and the student's, at every cell of each level:
        (B, C, h, w) in [0, 2]. Not clipped here: what is furthest would have no gradient.
        """
        distances = []
        for student, teacher in zip(self(levels), target, strict=True):
            a, b = (features.float().unflatten(1, (self.contrasts, -1)) for features in (student, teacher))
            distances.append(1.0 - F.cosine_similarity(a, b, dim=2))
        return distances

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        distances = self._distances(self.teacher(batch.image), self.teacher(healthy_slices(batch)))
        return {"loss": torch.stack([mean_distance(distance, batch.valid) for distance in distances]).sum()}

    def anomaly_map(self, image: Tensor, valid: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        taught = self.teacher(image)
        distances = [resized(distance, like=image).clamp(0.0, 1.0) for distance in self._distances(taught, taught)]
        return distance_map(torch.stack(distances).mean(dim=0), valid, brain)
