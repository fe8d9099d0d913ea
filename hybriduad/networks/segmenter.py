"""The supervised network G: it sees a slice with its reconstruction and outlines the lesion.

SADM (Behrendt et al., MIDL 2024, PMLR 250:87-102): a siamese encoder for residual and image. The parts are those of
segmentation-models-pytorch; no network holds BatchNorm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybriduad.config.runs import Segmenter as SegmenterConfig
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import BACKGROUND
from hybriduad.networks.restorer import Restorer, build_encoder


class Segmenter(nn.Module):
    """Image and reconstruction (B, C, H, W) in [-1, 1] -> logits (B, H, W).

    ``siamese`` passes every input through one shared encoder and joins the features of each level; ``stacked`` joins
    the inputs as channels. ``inputs`` says which of image, reconstruction and residual (image - reconstruction) the
    network sees; with ``("image",)`` it needs no reconstruction. ``draem`` is stacked, and makes the reconstruction
    itself, by a ``restorer`` that is trained with the rest. H and W may be any size of at least 32.
    """

    def __init__(self, config: SegmenterConfig, contrasts: int) -> None:
        from segmentation_models_pytorch.base import SegmentationHead
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        super().__init__()
        self.config = config
        streams = len(config.inputs) if config.layout == "siamese" else 1
        channels = contrasts if config.layout == "siamese" else contrasts * len(config.inputs)
        depth = len(config.decoder_channels)
        self.encoder, widths = build_encoder(config, channels)
        joined = [width * streams for width in widths]
        self.decoder = UnetDecoder(joined, config.decoder_channels, n_blocks=depth)
        self.head = SegmentationHead(config.decoder_channels[-1], 1, kernel_size=3)
        self.restorer = Restorer(config, contrasts) if config.layout == "draem" else None
        self.stride = 2**depth
        replace_batchnorm(self)

    @property
    def needs_reconstruction(self) -> bool:
        """Whether an input is configured that neither the image is nor the network makes itself."""
        return self.restorer is None and self.config.inputs != ("image",)

    def restored(self, image: Tensor) -> Tensor:
        """What the restorer of the layout ``draem`` makes of slices (B, C, H, W): that shape, about [-1, 1]."""
        assert self.restorer is not None  # of this layout alone
        whole: Tensor = self.restorer(self._padded(image))
        return whole[..., : image.shape[-2], : image.shape[-1]]

    def forward(self, image: Tensor, reconstruction: Tensor | None = None) -> Tensor:
        if self.restorer is not None and reconstruction is None:  # else it is at hand: its loss was taken
            reconstruction = self.restored(image)
        height, width = image.shape[-2:]
        # Padded before the residual is taken, whose background is 0 where that of an image is -1.
        seen = None if reconstruction is None else self._padded(reconstruction)
        streams = self._streams(self._padded(image), seen)
        if self.config.layout == "siamese":
            encoded = self.encoder(torch.cat(streams))
            features = [torch.cat(level.chunk(len(streams)), dim=1) for level in encoded]
        else:
            features = self.encoder(torch.cat(streams, dim=1))
        logits: Tensor = self.head(self.decoder(features))
        return logits[:, 0, :height, :width]

    def _streams(self, image: Tensor, reconstruction: Tensor | None) -> list[Tensor]:
        if self.needs_reconstruction and reconstruction is None:
            raise ConfigError(
                "segmenter without a reconstruction", got=f"inputs {self.config.inputs}", expected="a reconstructor"
            )
        streams = {"image": image}
        if reconstruction is not None:
            streams |= {"reconstruction": reconstruction, "residual": image - reconstruction}
        return [streams[name] for name in self.config.inputs]

    def _padded(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        extra = (0, -width % self.stride, 0, -height % self.stride)
        return nn.functional.pad(image, extra, value=BACKGROUND) if any(extra) else image


def replace_batchnorm(module: nn.Module, groups: int = 8) -> None:
    """Replace every BatchNorm inside ``module`` by GroupNorm (arXiv 1803.08494), in place.

    A shared encoder that is fed image and residual in turn would keep running statistics that fit neither.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            count = child.num_features
            share = next(g for g in range(min(groups, count), 0, -1) if count % g == 0)
            # The norms of timm's encoders hold the activation that follows them.
            held = [getattr(child, part) for part in ("drop", "act") if hasattr(child, part)]
            norm = nn.GroupNorm(share, count)
            setattr(module, name, nn.Sequential(norm, *held) if held else norm)
        else:
            replace_batchnorm(child, groups)
