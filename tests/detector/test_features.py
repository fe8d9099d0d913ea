"""A reconstructor without an image: what its detector gives, leaves out and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ANATOMY, prepared_cases
from torch import Tensor

from hybriduad.config.runs import Fusion, Residual
from hybriduad.config.runs import Segmenter as SegmenterConfig
from hybriduad.config.strict import PluginConfig
from hybriduad.core.errors import BundleError
from hybriduad.core.types import Batch
from hybriduad.detector.inference import Detector
from hybriduad.networks.scoring import fuse, median_filter_volume
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import FeatureReconstructor
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.slices import slices_of


class Brightness(FeatureReconstructor):
    """A family of which nothing is learnt: its map is the brightness."""

    def __init__(self) -> None:
        super().__init__(PluginConfig(name="brightness"), contrasts=1, size=ANATOMY.size)

    def loss(self, batch: Batch, keys: Tensor, player: str = "model") -> dict[str, Tensor]:
        return {"loss": batch.image.mean()}

    def anomaly_map(self, image: Tensor, valid: Tensor, brain: Tensor, keys: Tensor) -> Tensor:
        return (image[:, 0].float() + 1) / 2 * brain


@pytest.fixture(scope="module")
def prepared(tiny_cohort: Path) -> Prepared:
    return prepared_cases(tiny_cohort)[0]


def segmenter(*inputs: str) -> Segmenter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        config = SegmenterConfig.model_validate({"inputs": inputs, "decoder_channels": (16,) * 5})
        return Segmenter(config, 1)


def test_there_is_a_map_and_no_reconstruction(prepared: Prepared) -> None:
    residual = Residual(median_mm=5.0)
    detector = Detector(anatomy=ANATOMY, direction="axial", reconstructor=Brightness(), residual=residual, mirror=True)
    prediction = detector.predict_volume(prepared)
    assert prediction.reconstruction is None
    assert prediction.probability is None
    assert prediction.uncertainty is None
    assert prediction.map is not None
    np.testing.assert_array_equal(prediction.score, prediction.map)
    judged = prediction.map.any(axis=(0, 1))
    brain = np.array(prepared.brain) & judged
    plain = np.where(brain, (np.array(prepared.image[0]) + 1) / 2, 0).astype(np.float32)
    expected = median_filter_volume(plain, prepared.spacing_mm, brain, 5.0)
    np.testing.assert_allclose(prediction.map, expected, atol=1e-6)


def test_a_segmenter_of_the_image_alone_is_fused_with_the_map(prepared: Prepared) -> None:
    network, fusion = segmenter("image"), Fusion(form="sum", weight=2.0)
    detector = Detector(
        anatomy=ANATOMY, direction="axial", reconstructor=Brightness(), segmenter=network, fusion=fusion
    )
    alone = Detector(anatomy=ANATOMY, direction="axial", segmenter=network)
    batch = slices_of(prepared, [8, 9], seed=0)
    maps = detector.slice_maps(batch)
    assert maps.reconstruction is None
    assert maps.uncertainty is None
    torch.testing.assert_close(maps.probability, alone.slice_maps(batch).probability)
    prediction = detector.predict_volume(prepared)
    np.testing.assert_array_equal(prediction.score, fuse(prediction.map, prediction.probability, "sum", 2.0))


@pytest.mark.parametrize("inputs", [("reconstruction",), ("image", "residual")])
def test_a_segmenter_of_reconstructions_is_refused(inputs: tuple[str, ...]) -> None:
    with pytest.raises(BundleError, match="reconstructions that there are not: expected a segmenter of the image"):
        Detector(anatomy=ANATOMY, direction="axial", reconstructor=Brightness(), segmenter=segmenter(*inputs))
