"""What families without an image share: a frozen feature extractor, blocks of layers, from distances to a map."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybriduad.config.strict import PluginConfig
from hybriduad.core import rng
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import BACKGROUND, Batch
from hybriduad.reconstructors._base import FeatureReconstructor
from hybriduad.reconstructors._noise import noise_fields

MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the three colours, by which images are normalised for this network."""
CHANNELS = (64, 64, 128)
"""Of the levels: the stem at half the size of a slice, then two blocks at a quarter and an eighth."""
PICTURES, SIDE = 16, 64
"""Noise pictures of which a random network has its statistics of features, and their side."""
GROUPS = 8
"""Groups of every GroupNorm."""


class Extractor(nn.Module):
    """The first levels of torchvision's resnet18: random, or with weights that the user names; nothing is downloaded.

    Slices (B, C, H, W) in [-1, 1] -> the features of each level, (B, C channels, h, w), none below 0 and few above 10.
    Every contrast passes by itself, as a grey picture. The network is never trained, and in evaluation mode whatever
    :meth:`train` says, so that no statistics of its BatchNorm drift. Random weights are the same in every training.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        # On the CPU, whatever the device of the model, since the keyed generators live there.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.fold(0, "extractor"))
            network = _resnet18()
            _calibrate(network)
        # Under their names in torchvision, by which files of weights have them.
        self.conv1, self.bn1, self.maxpool = network.conv1, network.bn1, network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.register_buffer("mean", torch.tensor(MEANS).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATIONS).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).train()

    def train(self, mode: bool = True) -> Extractor:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        grey = ((image + 1.0) / 2.0).flatten(0, 1).unsqueeze(1)
        stem = self.bn1(self.conv1((grey - self.mean) / self.deviation)).relu()
        first = self.layer1(self.maxpool(stem))
        levels = (stem, first, self.layer2(first))
        return [level.unflatten(0, image.shape[:2]).flatten(1, 2) for level in levels]

    def load(self, path: Path) -> None:
        """Take the weights of a safetensors file of the whole of torchvision's resnet18.

        Raises:
            ConfigError: no such file, or a weight is missing, unknown or of another shape.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = _resnet18()
        try:
            network.load_state_dict(load_file(path), strict=True)
        except (RuntimeError, OSError, SafetensorError) as error:
            text = " ".join(str(error).split())[:200]
            expected = "a safetensors file of torchvision's resnet18"
            raise ConfigError("unusable weights of the extractor", where=path, got=text, expected=expected) from error
        state = network.state_dict()
        self.load_state_dict({name: state[name] for name in self.state_dict()})


class ExtractorConfig(PluginConfig):
    """``weights``: a safetensors file of torchvision's resnet18 for the extractor; without it, random weights."""

    weights: Path | None = None


class ExtractorReconstructor(FeatureReconstructor):
    """A family that reconstructs the features of an :class:`Extractor`, which is frozen.

    ``extractor_name``: the attribute that holds it, and so the name of its weights in a bundle.
    """

    config: ExtractorConfig
    extractor_name: ClassVar[str] = "extractor"

    def __init__(self, config: ExtractorConfig, contrasts: int, size: int) -> None:
        super().__init__(config, contrasts, size)
        self.add_module(self.extractor_name, Extractor())

    @property
    def pretrained(self) -> Path | None:
        return self.config.weights

    def load_pretrained(self, path: Path) -> None:
        extractor: Extractor = getattr(self, self.extractor_name)
        extractor.load(path)


def healthy_slices(batch: Batch) -> Tensor:
    """The slices of whose features those of a batch are reconstructed: (B, C, H, W) in [-1, 1], background where a
    contrast covers nothing."""
    return torch.where(batch.valid, batch.healthy, BACKGROUND)


def convolved(before: int, after: int, stride: int = 1) -> nn.Module:
    """Two convolutions, the first with ``stride``, each with GroupNorm and SiLU."""
    layers: list[nn.Module] = []
    for i, o, s in ((before, after, stride), (after, after, 1)):
        layers += [nn.Conv2d(i, o, 3, stride=s, padding=1), nn.GroupNorm(GROUPS, o), nn.SiLU()]
    return nn.Sequential(*layers)


def resized(values: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) on the grid of ``like`` (..., H, W), linearly."""
    return F.interpolate(values, size=like.shape[-2:], mode="bilinear", align_corners=False)


def mean_distance(distance: Tensor, valid: Tensor) -> Tensor:
    """Mean of a distance (B, C, h, w) over the cells that contrasts cover, by ``valid`` (B, C, H, W): a scalar."""
    weight = F.adaptive_avg_pool2d(valid.float(), (distance.shape[-2], distance.shape[-1]))
    return (distance * weight).sum() / weight.sum().clamp(min=1.0)


def distance_map(distance: Tensor, valid: Tensor, brain: Tensor) -> Tensor:
    """A distance (B, C, H, W) as a map (B, H, W) in [0, 1]: clipped, the mean over the contrasts that cover a voxel.

    The map is 0 outside the brain.
    """
    return (distance.clamp(0.0, 1.0) * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1) * brain


@torch.no_grad()
def _calibrate(network: nn.Module) -> None:
    """Give the BatchNorms of a random network the statistics of its features on noise pictures.

    Every channel is then about as often above 0 as below. Without, features of a bright tissue would be those of a dark
    tissue times a number, and fade or grow from block to block.
    """
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the mean over all that is seen
    grey = noise_fields("pyramid", torch.arange(PICTURES), (1, SIDE, SIDE)).expand(-1, 3, -1, -1)
    network.train()(grey)


def _resnet18() -> Any:
    from torchvision.models import resnet18

    return resnet18(weights=None)
