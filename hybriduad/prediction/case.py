"""Inference on one case: maps on the scan's own grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hybriduad.core.types import Case, Prediction
from hybriduad.detector.inference import Detector
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.grid import intensity_from_model, restore
from hybriduad.scan.preparation import Prepared, prepare, scan_on_grid


def predict_case(
    detector: Detector, case: Case, *, rule: str | None = None, cache: PreparedCache | None = None
) -> Prediction:
    """Predict one case on the grid and in the orientation of its reference scan.

    Maps come back by linear interpolation and are 0 outside the brain; the mask is the restored score against the
    threshold of ``rule`` (the bundle's default rule by default), which is that of this scan where the rule gives every
    scan its own, and absent without calibration. ``reconstruction`` is
    (C, X, Y, Z) in the units of each contrast's scan; outside the brain it equals the scan in the contrast that is
    written (``notes["shown"]``, :meth:`hybriduad.core.types.Case.shown_contrast`), and is 0 in others.

    Raises:
        DataError: the case cannot be prepared (:func:`hybriduad.scan.preparation.prepare`).
        ConfigError: a rule that was not calibrated.
    """
    anatomy, direction = detector.anatomy, detector.direction
    # A prediction must not depend on whether the truth is known.
    blind = replace(case, lesion=None, ignore=None)
    prepared = cache.get(blind, anatomy, direction) if cache else prepare(blind, anatomy, direction)
    found = detector.predict_volume(prepared, rule=rule)
    return on_scan_grid(found, prepared, case, detector, rule)


def on_scan_grid(
    found: Prediction, prepared: Prepared, case: Case, detector: Detector, rule: str | None = None
) -> Prediction:
    """Bring a prediction from the model grid back to the reference scan's own grid and orientation."""
    brain = restore(found.brain, prepared.grid, order=0) > 0

    def back(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        return np.where(brain, np.clip(restore(values, prepared.grid, order=1), 0.0, 1.0), 0.0).astype(np.float32)

    score = back(found.score)
    threshold = None if score is None else detector.thresholds.threshold("score", score[brain], rule)
    return replace(
        found,
        brain=brain,
        score=score,
        probability=back(found.probability),
        map=back(found.map),
        intensity=back(found.intensity),
        uncertainty=back(found.uncertainty),
        reconstruction=_pseudo_healthy(found, prepared, case, detector, brain),
        mask=None if score is None or threshold is None else (score >= threshold) & brain,
        threshold=threshold,
        grid=prepared.grid.volume,
        notes=found.notes | {"shown": case.shown_contrast(detector.anatomy.contrasts)},
    )


def _pseudo_healthy(
    found: Prediction, prepared: Prepared, case: Case, detector: Detector, brain: np.ndarray
) -> np.ndarray | None:
    """(C, X, Y, Z): the reconstruction inside the brain, and around it the scan of the contrast that is written."""
    if found.reconstruction is None:
        return None
    contrasts = detector.anatomy.contrasts
    shown = case.shown_contrast(contrasts)
    outside = {shown: scan_on_grid(case.images[shown], prepared.grid.volume)}
    result = np.zeros((len(contrasts), *brain.shape), dtype=np.float32)
    for index, name in enumerate(contrasts):
        if not prepared.present[index]:
            continue
        inside = intensity_from_model(found.reconstruction[index], prepared.grid, index)
        result[index] = np.where(brain, restore(inside, prepared.grid, order=1), outside.get(name, np.float32(0)))
    return result
