"""A detector: a reconstructor, a segmenter or both, and the score that fuses them. Slices -> maps -> Prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hybriduad.config.runs import Anatomy, Fusion, Precision, Residual
from hybriduad.core.errors import BundleError, DataError
from hybriduad.core.stopwatch import step
from hybriduad.core.types import Batch, Prediction
from hybriduad.detector.appearance import Appearance
from hybriduad.detector.familiarity import Reference, case_features
from hybriduad.detector.memory import in_batches
from hybriduad.detector.sharing import network_digest, result_of
from hybriduad.detector.thresholds import Thresholds
from hybriduad.networks.baselines import baseline_maps, departure_map, intensity_map, opposite_map
from hybriduad.networks.scoring import Map, fuse, median_filter_volume, smooth_across_slices, weigh
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import FeatureReconstructor, ImageReconstructor, Reconstructor
from hybriduad.scan.grid import SIDED, lateral_axis
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.slices import enough_brain, slices_of


class SliceMaps(NamedTuple):
    """Of B slices: ``map`` and ``probability`` (B, H, W) in [0, 1], ``reconstruction`` (B, C, H, W) in [-1, 1].

    ``uncertainty`` (B, H, W) in [0, 0.5] is the standard deviation of the probability over the reconstructions (noise
    levels and repeats): how far the outline depends on the pseudo-healthy image beside the slice.
    """

    map: Tensor | None = None
    probability: Tensor | None = None
    reconstruction: Tensor | None = None
    uncertainty: Tensor | None = None


class Detector:
    """Built once, called many times; every call is a pure function of the bundle and the scan.

    The networks are put in evaluation mode and their gradients switched off. ``mirror``: every slice is judged mirrored
    too, which is right for networks that learnt from mirrored slices; where slices show no left and right
    (:data:`hybriduad.scan.grid.SIDED`), none is. ``needed``: the contrasts that a case must have, as its bundle says.

    Raises:
        BundleError: neither a reconstructor nor a segmenter, or a segmenter that lacks the reconstruction it needs.
    """

    def __init__(
        self,
        *,
        anatomy: Anatomy,
        direction: str,
        reconstructor: Reconstructor | None = None,
        segmenter: Segmenter | None = None,
        residual: Residual | None = None,
        fusion: Fusion | None = None,
        thresholds: Thresholds | None = None,
        mirror: bool = False,
        needed: tuple[str, ...] = (),
        seed: int = 0,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
        reference: Reference | None = None,
        appearance: Appearance | None = None,
    ) -> None:
        if reconstructor is None and (segmenter is None or segmenter.needs_reconstruction):
            parts = "a reconstructor, or a segmenter of the image alone"
            raise BundleError("detector without a reconstructor", expected=parts)
        if segmenter is not None and segmenter.needs_reconstruction and isinstance(reconstructor, FeatureReconstructor):
            parts = "a segmenter of the image alone beside a reconstructor that has no image"
            raise BundleError("segmenter of reconstructions that there are not", expected=parts)
        self.anatomy, self.direction = anatomy, direction
        self.residual, self.fusion = residual or Residual(), fusion or Fusion()
        self.thresholds = thresholds or Thresholds()
        self.mirror = mirror and direction in SIDED
        self.needed = needed
        self.seed, self.precision, self.device = seed, precision, torch.device(device)
        self.reference, self.appearance = reference, appearance
        self.reconstructor = _frozen(reconstructor, self.device)
        self.segmenter = _frozen(segmenter, self.device)
        self._digests: dict[torch.nn.Module, str] = {}

    @torch.inference_mode()
    def slice_maps(self, batch: Batch) -> SliceMaps:
        """The maps of a batch of slices; the probability is averaged over the reconstructions, as in SADM.

        A mirroring detector judges every slice as it is and mirrored, and averages the two: a lesion shows in both,
        much of what looks like a lesion by chance does not (test-time augmentation, DOI 10.1016/j.neucom.2019.01.103).
        """
        moved = batch.to(self.device)
        views: list[tuple[Tensor | None, ...]] = [self._view(moved)]
        if self.mirror:
            views.append(tuple(None if part is None else part.flip(-2) for part in self._view(moved.mirrored())))
        anomaly, members, probabilities = (_mean(parts) for parts in zip(*views, strict=True))
        return SliceMaps(
            map=anomaly,
            probability=None if probabilities is None else probabilities.mean(dim=0),
            reconstruction=None if members is None else members.mean(dim=0),
            uncertainty=None
            if probabilities is None or len(probabilities) == 1
            else probabilities.std(dim=0, correction=0),
        )

    def _view(self, batch: Batch) -> tuple[Tensor | None, ...]:
        """Map (B, H, W), K reconstructions (K, B, C, H, W) and the probability beside each (K, B, H, W).

        A probability of the image alone is (1, B, H, W); what the detector lacks is None.
        """
        image = batch.image.contiguous(memory_format=torch.channels_last)
        shown = batch.brain & batch.valid.any(dim=1)
        bfloat16 = self.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            anomaly = members = probabilities = None
            if isinstance(self.reconstructor, ImageReconstructor):
                members = self._reconstructed(self.reconstructor, image, batch)
                members = torch.where(batch.valid, members, batch.image)  # of missing voxels nothing was learnt
            elif isinstance(self.reconstructor, FeatureReconstructor):
                anomaly = self.reconstructor.anomaly_map(image, batch.valid, batch.brain, batch.keys)
            if self.segmenter is not None:
                seen = members if members is not None and self.segmenter.needs_reconstruction else [None]
                probabilities = torch.stack([self._probability(image, shown, member) for member in seen])
        if isinstance(self.reconstructor, ImageReconstructor):
            assert members is not None
            anomaly = self.reconstructor.anomaly_map(batch.image, batch.valid, batch.brain, members, self.residual)
        return anomaly, members, probabilities

    def _reconstructed(self, reconstructor: ImageReconstructor, image: Tensor, batch: Batch) -> Tensor:
        return result_of(
            lambda: self._named(reconstructor),
            (image, batch.brain, batch.keys),
            lambda: reconstructor.reconstruct(image, batch.brain, batch.keys).float(),
        )

    def _probability(self, image: Tensor, shown: Tensor, reconstruction: Tensor | None) -> Tensor:
        segmenter = self.segmenter
        assert segmenter is not None
        return result_of(
            lambda: self._named(segmenter),
            (image, shown, reconstruction),
            lambda: segmenter(image, reconstruction).float().sigmoid() * shown,
        )

    def _named(self, network: torch.nn.Module) -> str:
        """A network and how it is run, whose weights are read once."""
        if network not in self._digests:
            self._digests[network] = network_digest(network)
        return f"{self._digests[network]} {self.precision} {self.device}"

    def _baselines(self, prepared: Prepared, judged: np.ndarray) -> dict[str, np.ndarray | None]:
        arguments, lateral = (prepared.spacing_mm, self.anatomy.contrasts), lateral_axis(self.direction)
        given = (prepared.image, prepared.valid, judged)
        return result_of(
            lambda: f"baselines {arguments} {lateral}", given, lambda: baseline_maps(*given, *arguments, lateral)
        )

    def intensity_witness(
        self,
        image: np.ndarray,
        valid: np.ndarray,
        brain: np.ndarray,
        spacing_mm: Sequence[float],
        reconstruction: np.ndarray | None,
        median_mm: float,
    ) -> np.ndarray:
        """What plain intensity says of each voxel of a volume to :meth:`fuse`: (H, W, S) float32 in [0, 1].

        As :class:`hybriduad.config.runs.Fusion` says, from ``image`` and ``reconstruction`` (C, H, W, S) in [-1, 1],
        ``valid`` (C, H, W, S) and ``brain`` (H, W, S) bool. Without a reconstruction nothing departs from it. The
        filter of the baselines is wider than ``median_mm``, and wipes out small lesions.

        Raises:
            DataError: shapes that do not fit, or no contrast is present.
        """
        volume = (valid, brain, spacing_mm, self.anatomy.contrasts)
        fusion = self.fusion
        if fusion.departure > 0:
            plain = departure_map(image, valid, brain, self.anatomy.contrasts, fusion.departure)
        else:
            plain = intensity_map(image, *volume, 0.0 if fusion.opposite > 0 else median_mm)
        if fusion.opposite == 0 or reconstruction is None:
            return plain
        other_side = fusion.opposite * opposite_map(image, reconstruction, *volume, median_mm)
        return 1.0 - (1.0 - plain) * (1.0 - other_side.clip(max=1.0))

    def predict_volume(self, prepared: Prepared, *, rule: str | None = None, batch: int = 16) -> Prediction:
        """The prediction of one case on the model grid (H, W, S).

        Slices with too little brain (:func:`hybriduad.scan.slices.enough_brain`) are not judged, since no such slice
        was ever learnt from: their maps are 0, and ``notes`` says how many they are. For want of memory fewer than
        ``batch`` slices go through the networks at once, and ``notes`` says so. ``reconstruction`` is
        (C, H, W, S) in [-1, 1], equal to the image outside the brain.

        Raises:
            ConfigError: a rule that was not calibrated.
            DataError: no slice holds enough brain.
        """
        brain = np.array(prepared.brain)
        judged = brain & enough_brain(brain, prepared.spacing_mm)
        indices = [int(k) for k in np.flatnonzero(judged.any(axis=(0, 1)))]
        if not indices:
            mend = "give a brain mask that covers it, or leave the case out"
            raise DataError("no slice with enough brain", got=f"{brain.sum()} voxels of brain in all", mend=mend)
        with step("network"):
            maps, fitting = in_batches(
                indices, batch, lambda chunk: self.slice_maps(slices_of(prepared, list(chunk), self.seed))
            )
        anomaly = _volume([part.map for part in maps], indices, brain.shape)
        if anomaly is not None:
            anomaly = median_filter_volume(anomaly, prepared.spacing_mm, judged, self.residual.median_mm)
        probability = _volume([part.probability for part in maps], indices, brain.shape)
        if probability is not None and self.fusion.smooth_mm > 0:
            slice_mm = prepared.spacing_mm[2]
            sigma_mm = min(self.fusion.smooth_mm, (self.fusion.smooth_slices or math.inf) * slice_mm)
            probability = smooth_across_slices(probability, slice_mm, judged, sigma_mm)
        baselines = self._baselines(prepared, judged)
        reconstruction = self._pseudo_healthy(prepared, maps, indices)
        volume = (prepared.image, prepared.valid, judged, prepared.spacing_mm)
        intensity = self.intensity_witness(*volume, reconstruction, self.residual.median_mm)
        score = np.where(judged, self.fuse(anomaly, probability, intensity, baselines["asymmetry"]), np.float32(0))
        voxel_ml = math.prod(prepared.spacing_mm) / 1000
        mask, threshold = self.thresholds.mask("score", score, brain, voxel_ml, rule)
        return Prediction(
            brain=brain,
            score=score,
            probability=probability,
            map=anomaly,
            uncertainty=_volume([part.uncertainty for part in maps], indices, brain.shape),
            **baselines,
            reconstruction=reconstruction,
            mask=mask,
            threshold=threshold,
            notes=dict(prepared.notes)
            | ({"slices_at_once": fitting} if fitting < batch else {})
            | {
                "slices_not_judged": int(brain.any(axis=(0, 1)).sum()) - len(indices),
                "absent_contrasts": [
                    name for name, here in zip(self.anatomy.contrasts, prepared.present, strict=True) if not here
                ],
                "out_of_distribution": self._familiarity(prepared),
                "appearance": self._appearance(prepared),
            },
        )

    def _familiarity(self, prepared: Prepared) -> dict[str, float] | None:
        """``distance`` of a case from what the bundle learnt from, and its ``limit``; None where it knows no limit."""
        if self.reference is None or self.reconstructor is None:
            return None
        features = case_features(self.reconstructor, prepared, self.seed, self.device)
        if features is None:
            return None
        return {"distance": round(self.reference.distance(features), 4), "limit": round(self.reference.limit, 4)}

    def _appearance(self, prepared: Prepared) -> list[dict[str, Any]]:
        """A flag for each contrast of a case that looks like another; none where the bundle knows no looks."""
        if self.appearance is None:
            return []
        return [measure.to_json() for measure in self.appearance.measures(prepared, self.anatomy.contrasts)]

    def fuse(self, map: Map | None, probability: Map | None, intensity: Map, asymmetry: Map | None) -> Map:
        """The score of maps of one shape, arrays or tensors, by the detector's fusion.

        ``intensity`` (:meth:`intensity_witness`) and left-right asymmetry count only where map and probability are
        fused; an asymmetry that a volume does not allow (``None``) is 0.
        """
        fusion = self.fusion
        score = fuse(map, probability, fusion.form, fusion.weight, fusion.floor)
        if map is None or probability is None:
            return score
        if fusion.intensity > 0:
            score = weigh(score, intensity, fusion.intensity)
        if fusion.asymmetry > 0:
            score = weigh(score, 0 * score if asymmetry is None else asymmetry, fusion.asymmetry, fusion.floor)
        return score

    def _pseudo_healthy(self, prepared: Prepared, maps: list[SliceMaps], indices: list[int]) -> np.ndarray | None:
        slices = [part.reconstruction for part in maps]
        if not slices or any(part is None for part in slices):
            return None
        result = np.array(prepared.image)
        computed = torch.cat([part for part in slices if part is not None]).cpu().numpy()
        inside = np.broadcast_to(np.array(prepared.brain)[None], result.shape)
        whole = result.copy()
        whole[..., indices] = np.moveaxis(computed, 0, -1)
        return np.where(inside, whole, result)


def _frozen(module: Any, device: torch.device) -> Any:
    return None if module is None else module.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def _mean(views: Sequence[Tensor | None]) -> Tensor | None:
    computed = [view for view in views if view is not None]
    return torch.stack(computed).mean(dim=0) if computed else None


def _volume(slices: list[Tensor | None], indices: list[int], shape: tuple[int, ...]) -> np.ndarray | None:
    computed = [part for part in slices if part is not None]
    if len(computed) != len(slices) or not slices:
        return None
    volume = np.zeros(shape, dtype=np.float32)
    volume[..., indices] = np.moveaxis(torch.cat(computed).float().cpu().numpy(), 0, -1)
    return volume
