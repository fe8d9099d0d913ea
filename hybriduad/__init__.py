"""hybriduad finds and outlines lesions in brain MRI. Research use only: not a medical device.

Every public name is loaded when it is first used, so ``import hybriduad`` imports neither torch nor anything heavy::

    import hybriduad as hu

    recon = hu.fit_reconstructor("restoration", "cohort.csv", out="runs/recon")
    det = hu.fit_detector("synthetic", "cohort.csv", reconstructor="runs/recon", out="runs/det")
    detector = hu.load_detector("runs/det", device="auto")
    prediction = detector.predict(hu.read_case("sub-01_FLAIR.nii.gz"))
    hu.predict_cohort("runs/det", "site_b.csv", out="predictions/site_b")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Case": "core.types",
    "CaseDetector": "prediction.case_detector",
    "HybridUADError": "core.errors",
    "Prediction": "core.types",
    "calibrate": "evaluation.calibration",
    "choose_operating_point": "evaluation.operating_point",
    "compare": "evaluation.comparison",
    "evaluate": "evaluation.evaluate",
    "fill_cohort": "exchange.filled_cohort",
    "find_blind_spots": "evaluation.blind_spots",
    "fit_detector": "training.fitting",
    "fit_reconstructor": "training.fitting",
    "import_dicom": "exchange.dicom_import",
    "index": "cohort.manifest",
    "load_detector": "prediction.case_detector",
    "paint_cohort": "training.painted_cohort",
    "predict_case": "prediction.case",
    "predict_cohort": "prediction.cohort",
    "read_case": "cohort.manifest",
    "read_cohort": "cohort.manifest",
    "run_benchmark": "benchmark.run",
    "write_dicom_seg": "exchange.dicom_segmentation",
    "write_report": "report.build",
}
"""Public name -> the module that it comes from."""

__all__ = ["__version__", "phantom", *_HOMES]

if TYPE_CHECKING:  # for editors and type checkers, which do not run __getattr__
    from hybriduad import phantom as phantom
    from hybriduad.benchmark.run import run_benchmark as run_benchmark
    from hybriduad.cohort.manifest import index as index
    from hybriduad.cohort.manifest import read_case as read_case
    from hybriduad.cohort.manifest import read_cohort as read_cohort
    from hybriduad.core.errors import HybridUADError as HybridUADError
    from hybriduad.core.types import Case as Case
    from hybriduad.core.types import Prediction as Prediction
    from hybriduad.evaluation.blind_spots import find_blind_spots as find_blind_spots
    from hybriduad.evaluation.calibration import calibrate as calibrate
    from hybriduad.evaluation.comparison import compare as compare
    from hybriduad.evaluation.evaluate import evaluate as evaluate
    from hybriduad.evaluation.operating_point import choose_operating_point as choose_operating_point
    from hybriduad.exchange.dicom_import import import_dicom as import_dicom
    from hybriduad.exchange.dicom_segmentation import write_dicom_seg as write_dicom_seg
    from hybriduad.exchange.filled_cohort import fill_cohort as fill_cohort
    from hybriduad.prediction.case import predict_case as predict_case
    from hybriduad.prediction.case_detector import CaseDetector as CaseDetector
    from hybriduad.prediction.case_detector import load_detector as load_detector
    from hybriduad.prediction.cohort import predict_cohort as predict_cohort
    from hybriduad.report.build import write_report as write_report
    from hybriduad.training.fitting import fit_detector as fit_detector
    from hybriduad.training.fitting import fit_reconstructor as fit_reconstructor
    from hybriduad.training.painted_cohort import paint_cohort as paint_cohort


def __getattr__(name: str) -> Any:
    if name == "phantom":  # a subpackage: hybriduad.phantom.write_cohort
        return importlib.import_module("hybriduad.phantom")
    if name not in _HOMES:
        raise AttributeError(f"module 'hybriduad' has no attribute {name!r}; it has {sorted(__all__)}")
    value = getattr(importlib.import_module(f"hybriduad.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
