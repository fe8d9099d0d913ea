"""The convolutional encoder and decoder with a dense code between them, shared by the autoencoders."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from hybriduad.core.errors import ConfigError

GROUPS = 8
"""Groups of every GroupNorm."""
WIDEST = 4
"""The channels double from level to level, up to this many times those of the first."""


class Encoder(nn.Module):
    """Slices (B, C, size, size) -> (B, numbers), halved ``depth`` times; ``width`` channels at the first level.

    Raises:
        ConfigError: a size that cannot be halved so often.
    """

    def __init__(self, contrasts: int, size: int, *, width: int, depth: int, numbers: int) -> None:
        super().__init__()
        side, widths = _coarsest(size, depth), _widths(width, depth)
        layers: list[nn.Module] = []
        for before, after in pairwise([contrasts, *widths]):
            layers += _convolved(before, after, stride=2) + _convolved(after, after)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side**2, numbers))

    def forward(self, image: Tensor) -> Tensor:
        numbers: Tensor = self.layers(image)
        return numbers


class Decoder(nn.Module):
    """Codes (B, numbers) -> slices (B, C, size, size), not limited to [-1, 1]; the encoder's levels backwards."""

    def __init__(self, contrasts: int, size: int, *, width: int, depth: int, numbers: int) -> None:
        super().__init__()
        side, widths = _coarsest(size, depth), _widths(width, depth)[::-1]
        layers: list[nn.Module] = [nn.Linear(numbers, widths[0] * side**2), nn.Unflatten(1, (widths[0], side, side))]
        for before, after in pairwise([*widths, width]):
            layers += [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)]
            layers += _convolved(before, after) + _convolved(after, after)
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, contrasts, 1))

    def forward(self, code: Tensor) -> Tensor:
        image: Tensor = self.layers(code)
        return image


def _widths(width: int, depth: int) -> list[int]:
    return [width * min(2**level, WIDEST) for level in range(depth)]


def _coarsest(size: int, depth: int) -> int:
    """The side of the coarsest level."""
    stride: int = 2**depth
    if size % stride:
        mend = "change anatomy.size or model.depth"
        raise ConfigError(
            "size that the autoencoder cannot halve", got=size, expected=f"a multiple of {stride}", mend=mend
        )
    return size // stride


def _convolved(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(GROUPS, after), nn.SiLU()]
