"""A detector that takes cases: built once from a bundle, called many times."""

from __future__ import annotations

import inspect
from pathlib import Path

from hybriduad import bundle as bundles
from hybriduad.detector import Detector
from hybriduad.prediction import predict_case
from hybriduad.types import Case, Prediction


class CaseDetector(Detector):
    """A :class:`~hybriduad.detector.Detector` that also finds the way from a scan to the model grid and back."""

    def predict(self, case: Case, *, rule: str | None = None) -> Prediction:
        """The prediction of one case on the grid and in the orientation of its reference scan.

        As :func:`hybriduad.prediction.predict_case`, which ``hybriduad predict`` calls too.

        Raises:
            DataError: the case cannot be used.
            ConfigError: a ``rule`` that the bundle was not calibrated by.
        """
        return predict_case(self, case, rule=rule)


def load_detector(bundle: str | Path, device: str = "auto") -> CaseDetector:
    """Load a detector's bundle, or a reconstructor's, whose map alone is then the score.

    Args:
        bundle: the model folder.
        device: "auto" (the first CUDA device, else the CPU), "cpu", "cuda", "cuda:1".

    Raises:
        BundleError: no bundle there, or a damaged one.
        ConfigError: an unusable device.
    """
    loaded = bundles.load_detector(bundle, device)
    # Whatever a detector is built from it keeps under the same name.
    return CaseDetector(**{name: getattr(loaded, name) for name in inspect.signature(Detector).parameters})
