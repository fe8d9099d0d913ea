"""Figures on slices painted by generators that a training does not use: how it does on what it was not made for.

A detector learns the anomalies it is trained on, so its AUPRC on them says little of lesions that nobody painted. A
default (anomalies, fusion, residual) chosen by these figures is chosen without a look at any patient's lesion.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from torch import Tensor

from hybriduad.config.strict import AnomalyConfig
from hybriduad.core import plugins
from hybriduad.core.types import Batch
from hybriduad.detector.inference import Detector
from hybriduad.metrics import ScoreHistogram
from hybriduad.networks.baselines import asymmetry_map
from hybriduad.networks.scoring import median_filter_volume
from hybriduad.scan.grid import lateral_axis

HELD_OUT = (
    ("atrophy-cavity", "perlin", "foreign-patch"),
    ("intensity-bias", "smooth-intensity", "coarse-noise"),
)
"""Two kinds of painters that differ much, each in the order in which one is taken: those that replace tissue by another
content, and those that keep its structure and change its intensity.

The first of each kind are the plainest to see. In 32 slices of two healthy T1w scans a lesion changed by .64 on the
range [-1, 1] on average under ``atrophy-cavity`` (fluid where tissue was) and by .34 under ``intensity-bias`` (brighter
or darker, each tissue by another amount); by .15 under ``poisson`` and by .13 under ``warp``, which are not listed:
most of what they call lesion looks healthy.
"""
UNSEEN = "validation_unseen_auprc"
UNSEEN_MAP, UNSEEN_SCORE = "validation_unseen_map_auprc", "validation_unseen_score_auprc"
APART_MM = 100.0
"""Distance of a lone slice to its neighbours: beyond the reach of every filter."""


def held_out(trained: Collection[str]) -> list[AnomalyConfig]:
    """Of each kind of :data:`HELD_OUT` the first generator that is not ``trained``, as its defaults paint."""
    chosen = [next((name for name in kind if name not in trained), None) for kind in HELD_OUT]
    return [plugins.load("anomalies", name).Config() for name in chosen if name is not None]


class UnseenSlices:
    """Slices that nothing is learnt from, painted by ``generators`` (names) that the training does not use."""

    def __init__(self, batches: Sequence[Batch], generators: Sequence[str]) -> None:
        self.batches, self.generators = tuple(batches), tuple(generators)
        self._asymmetries: list[np.ndarray] = []

    def figures(self, detector: Detector) -> dict[str, float]:
        """The AUPRC of a detector as it is now, over the voxels of all slices, brain without what is marked ignore.

        ``validation_unseen_auprc`` is of the segmenter's probability, or without a segmenter of the reconstruction's
        map, unfiltered, just as ``validation_auprc`` is. Beside a probability, where there is a map:
        ``validation_unseen_map_auprc`` of the map behind its median filter, and ``validation_unseen_score_auprc`` of
        the two fused by the detector's fusion. A slice has no neighbours: the median filters reach over the slice
        alone, the probability is not smoothed across slices, and the line of the left-right asymmetry is found on the
        slice. So these rank forms of fusion, and are not what volumes will get. Without slices there are none.
        """
        parts: dict[str, ScoreHistogram] = {}
        for number, batch in enumerate(self.batches):
            counted = (batch.brain & ~batch.ignore).numpy()
            truth = batch.lesion.numpy()[counted]
            for name, values in self._scores(detector, number, batch):
                parts.setdefault(name, ScoreHistogram()).add(values[counted], truth)
        return {name: histogram.average_precision() for name, histogram in parts.items()}

    def _scores(self, detector: Detector, number: int, batch: Batch) -> Iterator[tuple[str, np.ndarray]]:
        """Each figure's name and its scores (B, H, W) of a batch."""
        maps = detector.slice_maps(batch)
        anomaly, probability = (
            None if part is None else part.float().cpu().numpy() for part in (maps.map, maps.probability)
        )
        if probability is None:
            assert anomaly is not None  # a detector has a map or a probability
            yield UNSEEN, anomaly
            return
        yield UNSEEN, probability
        if anomaly is not None:
            filtered = np.stack(
                [
                    median_filter_volume(values[..., None], spacing, brain, detector.residual.median_mm)[..., 0]
                    for values, (_, _, brain, spacing) in zip(anomaly, _lone_volumes(batch), strict=True)
                ]
            )
            yield UNSEEN_MAP, filtered
            intensity = _intensity(detector, batch, maps.reconstruction)
            yield UNSEEN_SCORE, detector.fuse(filtered, probability, intensity, self._asymmetry(detector, number))

    def _asymmetry(self, detector: Detector, number: int) -> np.ndarray:
        """Of a batch, (B, H, W); computed once, as it does not depend on any weights."""
        if not self._asymmetries:
            self._asymmetries = [_asymmetry(detector, batch) for batch in self.batches]
        return self._asymmetries[number]


def _lone_volumes(batch: Batch) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float, float]]]:
    """Of each slice image and valid (C, H, W, 1), brain (H, W, 1) and spacing: a volume of that slice alone."""
    for image, valid, brain, (h, w) in zip(
        batch.image.numpy(), batch.valid.numpy(), batch.brain.numpy(), batch.spacing_mm.tolist(), strict=True
    ):
        yield image[..., None], valid[..., None], brain[..., None], (h, w, APART_MM)


def _intensity(detector: Detector, batch: Batch, reconstruction: Tensor | None) -> np.ndarray:
    """As a detector fuses it, (B, H, W); 0 where its fusion does not ask for it or a slice is empty."""
    intensity = np.zeros(batch.brain.shape, np.float32)
    if detector.fusion.intensity == 0:
        return intensity
    for index, volume in enumerate(_lone_volumes(batch)):
        if (volume[1] & volume[2]).any():
            expected = None if reconstruction is None else reconstruction[index, ..., None].float().cpu().numpy()
            intensity[index] = detector.intensity_witness(*volume, expected, detector.residual.median_mm)[..., 0]
    return intensity


def _asymmetry(detector: Detector, batch: Batch) -> np.ndarray:
    """As a detector fuses it, (B, H, W); 0 where its fusion does not ask for it or a slice does not allow it."""
    asymmetry = np.zeros(batch.brain.shape, np.float32)
    if detector.fusion.asymmetry == 0:
        return asymmetry
    for index, volume in enumerate(_lone_volumes(batch)):
        if (volume[1] & volume[2]).any():
            found = asymmetry_map(*volume, detector.anatomy.contrasts, lateral_axis(detector.direction))
            asymmetry[index] = 0 if found is None else found[..., 0]
    return asymmetry
