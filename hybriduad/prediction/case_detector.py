"""A detector that takes cases: built once from a bundle, called many times."""

from __future__ import annotations

from pathlib import Path

from hybriduad.core.types import Case, Prediction
from hybriduad.detector import loading
from hybriduad.detector.inference import Detector
from hybriduad.prediction.case import predict_case
from hybriduad.prediction.quality import with_quality
from hybriduad.scan.brain_ways import chosen


class CaseDetector(Detector):
    """A :class:`~hybriduad.detector.inference.Detector` that also knows the way from a scan and back to it."""

    def predict(self, case: Case, *, rule: str | None = None) -> Prediction:
        """The prediction of one case on the grid and in the orientation of its reference scan.

        As :func:`hybriduad.prediction.case.predict_case`, which ``hybriduad predict`` calls too, with
        ``notes["quality"]`` of :func:`hybriduad.prediction.quality.with_quality`.

        Raises:
            DataError: the case cannot be used.
            ConfigError: a ``rule`` that the bundle was not calibrated by.
        """
        return with_quality(predict_case(self, case, rule=rule), case, self.anatomy.contrasts)


def load_detector(bundle: str | Path, device: str = "auto", brain: str | None = None) -> CaseDetector:
    """Load a detector's bundle, or a reconstructor's, whose map alone is then the score.

    Args:
        bundle: the model folder.
        device: "auto" (the first CUDA device, else the CPU), "cpu", "cuda", "cuda:1".
        brain: how the brains of heads are found, as :func:`hybriduad.scan.brain_ways.chosen` takes it; by default as
            the bundle says.

    Raises:
        BundleError: no bundle there, or a damaged bundle.
        ConfigError: an unusable device, or a way to the brain that is not installed.
    """
    loaded = loading.load_detector(bundle, device)
    return CaseDetector(
        anatomy=chosen(loaded.anatomy, brain),
        direction=loaded.direction,
        reconstructor=loaded.reconstructor,
        segmenter=loaded.segmenter,
        residual=loaded.residual,
        fusion=loaded.fusion,
        thresholds=loaded.thresholds,
        mirror=loaded.mirror,
        needed=loaded.needed,
        seed=loaded.seed,
        precision=loaded.precision,
        device=loaded.device,
        reference=loaded.reference,
        appearance=loaded.appearance,
    )
