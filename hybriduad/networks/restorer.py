"""The reconstructive sub-network of DRAEM: it removes what does not belong, and learns that beside the segmenter.

DRAEM (Zavrtanik, Kristan, Skočaj, ICCV 2021, arXiv:2108.07610): an encoder and a decoder without connections between
them turn the painted slice into the slice before; a UNet outlines the anomaly from both. Here the parts are those of
segmentation-models-pytorch.
"""

from __future__ import annotations

from torch import Tensor, nn

from hybriduad.config.runs import Segmenter as SegmenterConfig
from hybriduad.core.errors import ConfigError


def build_encoder(config: SegmenterConfig, channels: int) -> tuple[nn.Module, list[int]]:
    """The configured encoder for ``channels`` channels, untrained and as deep as its decoder, and each level's width.

    Raises:
        ConfigError: an encoder that is not known, or cannot be that deep.
    """
    from segmentation_models_pytorch.encoders import get_encoder

    depth = len(config.decoder_channels)
    try:
        # No weights: the library would otherwise download them.
        encoder = get_encoder(config.encoder, in_channels=channels, depth=depth, weights=None)
    except (KeyError, RuntimeError, ValueError) as error:  # by whichever library it is looked for
        raise ConfigError(
            "unusable encoder",
            got=f"{config.encoder!r} with {depth} decoder_channels",
            expected="an encoder of segmentation-models-pytorch, e.g. resnet18",
        ) from error
    return encoder, list(encoder.out_channels)


class Restorer(nn.Module):
    """Slices (B, C, H, W) in [-1, 1] -> the slices without their anomaly, of that shape, not limited to [-1, 1].

    H and W are multiples of 2^depth. All that the decoder sees is the coarsest level: past it nothing can be copied.
    """

    def __init__(self, config: SegmenterConfig, contrasts: int) -> None:
        from segmentation_models_pytorch.base import SegmentationHead
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        super().__init__()
        depth = len(config.decoder_channels)
        self.encoder, widths = build_encoder(config, contrasts)
        self.decoder = UnetDecoder([0] * depth + widths[-1:], config.decoder_channels, n_blocks=depth)
        self.head = SegmentationHead(config.decoder_channels[-1], contrasts, kernel_size=3)

    def forward(self, image: Tensor) -> Tensor:
        *finer, coarsest = self.encoder(image)
        # Of the finer levels the decoder needs the sizes alone.
        restored: Tensor = self.head(self.decoder([*(level[:, :0] for level in finer), coarsest]))
        return restored
