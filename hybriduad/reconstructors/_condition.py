"""The encoder of the clean input slice whose code conditions a diffusion model (cDDPM, arXiv 2312.04215)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

CODE = 128


class ConditionEncoder(nn.Module):
    """Image (B, C, H, W) -> code of 128 numbers -> (B, width), added to the time embedding.

    ``resnet50`` is the paper's; ``small`` a five-layer network for CPUs. GroupNorm throughout, so that a slice's code
    depends on that slice alone. A code of the clean slice can carry the lesion: train with painted lesions in the
    input (a synthetic share in the run config's ``mix``) where that matters.
    """

    def __init__(self, kind: Literal["small", "resnet50"], contrasts: int, width: int) -> None:
        super().__init__()
        self.trunk = _resnet50(contrasts) if kind == "resnet50" else _small(contrasts)
        self.to_width = nn.Linear(CODE, width)
        # Starts as no condition at all, so that early training is that of the unconditional model.
        nn.init.zeros_(self.to_width.weight)
        nn.init.zeros_(self.to_width.bias)

    def forward(self, image: Tensor) -> Tensor:
        return self.to_width(self.trunk(image))


def _small(contrasts: int) -> nn.Module:
    widths = (contrasts, 16, 32, 64, 96, 128)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CODE))


def _resnet50(contrasts: int) -> nn.Module:
    from torchvision.models import resnet50

    network = resnet50(weights=None, num_classes=CODE, norm_layer=lambda channels: nn.GroupNorm(32, channels))
    network.conv1 = nn.Conv2d(contrasts, 64, 7, stride=2, padding=3, bias=False)
    return network
