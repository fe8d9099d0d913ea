"""The UNet of a diffusion model, shared by the families that denoise and that fill."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hybriduad.core.errors import ConfigError

GROUPS = 16
"""Groups of every GroupNorm."""


def check_widths(widths: tuple[int, ...]) -> None:
    """Raises: ValueError, for pydantic: no level, or channels that do not fall into groups."""
    if not widths or any(width < GROUPS or width % GROUPS for width in widths):
        raise ValueError(f"widths must be multiples of {GROUPS}")


def make_unet(
    size: int,
    inputs: int,
    outputs: int,
    *,
    widths: tuple[int, ...],
    blocks: int,
    unshuffle: int,
    coded: bool = False,
    from_zero: bool = False,
) -> Any:
    """A UNet of slices (B, inputs, size, size), folded by ``unshuffle``, for :func:`apply_unet`.

    ``coded``: it takes a code of 4 x ``widths[0]`` numbers beside the level. ``from_zero``: its last convolution starts
    at zero, so untrained its output is 0.

    Raises:
        ConfigError: a size that cannot be halved so often.
    """
    from diffusers import UNet2DModel

    if size % (stride := unshuffle * 2 ** (len(widths) - 1)):
        mend = "change anatomy.size, model.unshuffle or the number of model.widths"
        raise ConfigError(
            "size that the denoiser cannot halve", got=size, expected=f"a multiple of {stride}", mend=mend
        )
    network: Any = UNet2DModel(
        sample_size=size // unshuffle,
        in_channels=inputs * unshuffle**2,
        out_channels=outputs * unshuffle**2,
        layers_per_block=blocks,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        add_attention=False,
        norm_num_groups=GROUPS,
        class_embed_type="identity" if coded else None,
    )
    if from_zero:
        torch.nn.init.zeros_(network.conv_out.weight)
        torch.nn.init.zeros_(network.conv_out.bias)
    return network


def apply_unet(network: Any, slices: Tensor, level: Tensor, unshuffle: int, code: Tensor | None = None) -> Tensor:
    """The output (B, outputs, H, W) of a :func:`make_unet` for slices (B, inputs, H, W) and noise levels (B,)."""
    folded = F.pixel_unshuffle(slices, unshuffle) if unshuffle > 1 else slices
    predicted: Tensor = network(folded, level, class_labels=code).sample
    return F.pixel_shuffle(predicted, unshuffle) if unshuffle > 1 else predicted


class DeepestFeatures:
    """While open, catches what the deepest block of a :func:`make_unet` puts out; ``pooled`` (B, D) float32, the mean
    over its calls."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._caught: list[Tensor] = []

    def __enter__(self) -> DeepestFeatures:
        self._handle = self._network.mid_block.register_forward_hook(lambda _m, _i, out: self._caught.append(out))
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    @property
    def pooled(self) -> Tensor:
        return torch.stack([deepest.float().mean(dim=(2, 3)) for deepest in self._caught]).mean(dim=0)
