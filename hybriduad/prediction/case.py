"""Inference on a case: maps on the grid of its scan."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy import ndimage

from hybriduad.core.errors import DataError
from hybriduad.core.stopwatch import step
from hybriduad.core.types import Case, Prediction
from hybriduad.detector.inference import Detector
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.grid import intensity_from_model, restore
from hybriduad.scan.preparation import Prepared, prepare, scan_on_grid
from hybriduad.scan.slices import enough_brain
from hybriduad.scan.volumes import spacing_of


def predict_case(
    detector: Detector,
    case: Case,
    *,
    rule: str | None = None,
    cache: PreparedCache | None = None,
    prepared: Prepared | None = None,
) -> Prediction:
    """Predict one case on the grid and in the orientation of its reference scan.

    Maps come back by linear interpolation. They are 0 in slices that were not judged and outside ``brain``, which is
    that of the scan itself, whatever the model grid. The mask is the restored score against the threshold of ``rule``
    (the bundle's default rule by default), computed for this scan where the rule asks for that, and absent
    without calibration. ``reconstruction`` is (C, X, Y, Z) in the units of each contrast's scan; outside the
    brain it equals the scan in the contrast that is written (``notes["shown"]``,
    :meth:`hybriduad.core.types.Case.shown_contrast`), and is 0 in others. ``notes["precision"]`` is that in which the
    networks ran.

    ``prepared`` is what :func:`prepare_case` made of it ahead.

    Raises:
        DataError: the case cannot be prepared (:func:`hybriduad.scan.preparation.prepare`), or lacks a contrast whose
            absence its bundle never met in training (:attr:`hybriduad.detector.bundle.Bundle.needed`).
        ConfigError: a rule that was not calibrated.
    """
    prepared = prepared or prepare_case(detector, case, cache)
    with step("maps"):
        prediction = detector.predict_volume(prepared, rule=rule)
    with step("restore"):
        return on_scan_grid(prediction, prepared, case, detector, rule)


def prepare_case(detector: Detector, case: Case, cache: PreparedCache | None = None) -> Prepared:
    """A case on the model grid of a detector, without the truth: a prediction does not depend on whether it is known.

    Raises:
        DataError: as :func:`hybriduad.scan.preparation.prepare`.
    """
    case.check((*detector.anatomy.contrasts, case.reference, "brain"))
    if missing := [name for name in detector.needed if name not in case.images]:
        mend = "add that scan, or use a bundle that was fitted with contrast dropout (augmentation.absent above 0)"
        got, expected = f"{sorted(case.images)} without {', '.join(missing)}", list(detector.anatomy.contrasts)
        raise DataError("contrast that the bundle needs", where=case.name, got=got, expected=expected, mend=mend)
    blind = replace(case, lesion=None, ignore=None, lesion_free={}, faults={})
    with step("prepare"):
        if cache is not None:
            return cache.get(blind, detector.anatomy, detector.direction)
        return prepare(blind, detector.anatomy, detector.direction)


def on_scan_grid(
    prediction: Prediction, prepared: Prepared, case: Case, detector: Detector, rule: str | None = None
) -> Prediction:
    """Bring a prediction from the model grid back to the grid and orientation of the reference scan.

    Before a map is interpolated, its values are carried outward from the judged pixels: at the rim of the scan's brain
    it is neither mixed with the background nor cut off where the coarser brain of the model grid ends.
    """
    brain = np.array(prepared.scan_brain)
    nearest = _nearest(prediction.brain & enough_brain(prediction.brain, prepared.spacing_mm), prepared.spacing_mm)

    def back(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        carried = np.take_along_axis(values.reshape(nearest.shape), nearest, axis=0).reshape(values.shape)
        return np.where(brain, np.clip(restore(carried, prepared.grid, order=1), 0.0, 1.0), 0.0).astype(np.float32)

    score = back(prediction.score)
    voxel_ml = math.prod(spacing_of(prepared.grid.volume.affine)) / 1000
    mask, threshold = (None, None) if score is None else detector.thresholds.mask("score", score, brain, voxel_ml, rule)
    return replace(
        prediction,
        brain=brain,
        score=score,
        probability=back(prediction.probability),
        map=back(prediction.map),
        intensity=back(prediction.intensity),
        asymmetry=back(prediction.asymmetry),
        uncertainty=back(prediction.uncertainty),
        reconstruction=_pseudo_healthy(prediction, prepared, case, detector, brain),
        mask=mask,
        threshold=threshold,
        grid=prepared.grid.volume,
        notes=prediction.notes
        | {"shown": case.shown_contrast(detector.anatomy.contrasts), "precision": detector.precision},
    )


def _nearest(judged: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """(H W, S): for every pixel of ``judged`` (H, W, S) the place in H W of the nearest judged pixel of its slice; of
    the pixel itself in slices without any."""
    h, w, depth = judged.shape
    nearest = np.tile(np.arange(h * w)[:, None], (1, depth))
    for index in np.flatnonzero(judged.any(axis=(0, 1))):
        rows, columns = ndimage.distance_transform_edt(
            ~judged[..., index], sampling=spacing_mm[:2], return_distances=False, return_indices=True
        )
        nearest[:, index] = (rows * w + columns).ravel()
    return nearest


def _pseudo_healthy(
    prediction: Prediction, prepared: Prepared, case: Case, detector: Detector, brain: np.ndarray
) -> np.ndarray | None:
    """(C, X, Y, Z): the reconstruction inside the brain, and around it the scan; 0 of a contrast that is absent."""
    if prediction.reconstruction is None:
        return None
    contrasts = detector.anatomy.contrasts
    result = np.zeros((len(contrasts), *brain.shape), dtype=np.float32)
    for index, name in enumerate(contrasts):
        if not prepared.present[index]:
            continue
        inside = intensity_from_model(prediction.reconstruction[index], prepared.grid, index)
        around = scan_on_grid(case.images, name, prepared.grid.volume, prepared.notes)
        if prepared.bias is None:
            result[index] = np.where(brain, restore(inside, prepared.grid, order=1), around)
        else:  # around the brain the model grid is empty: nothing of that is mixed in
            shaded = np.where(prediction.brain, inside * prepared.bias[index], np.float32(0))
            share = restore(prediction.brain.astype(np.float32), prepared.grid, order=1)
            whole = restore(shaded, prepared.grid, order=1) / np.maximum(share, np.float32(0.01))
            result[index] = np.where(brain & (share > 0.01), whole, around)
    return result
