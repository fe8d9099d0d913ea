"""Figures of merit, one meaning each, in numpy and scipy alone.

``voxels``: confusion and rates of masks. ``histogram``: AUPRC, AUROC and best-possible Dice of scores, exact under
merging. ``lesions``: hits and false alarms, lesion by lesion, and by their size. ``surfaces``: distances
between outlines. ``scans``: healthy scans against ill. ``intervals``: bootstrap over subjects.

Every figure is nan where it is undefined: lesion-free cases are nan in AUPRC, Dice and sensitivity, and enter only
the false-positive figures. Scores and masks are compared inside the brain, as the caller passes it.
"""

from hybriduad.metrics.histogram import ScoreHistogram
from hybriduad.metrics.intervals import (
    Interval,
    bootstrap,
    bootstrap_pooled,
    paired_difference,
)
from hybriduad.metrics.lesions import (
    SIZES,
    Detection,
    LesionCounts,
    component_table,
    lesion_detection,
    lesion_f1,
    lesion_precision,
    lesion_recall,
    match_lesions,
)
from hybriduad.metrics.scans import scan_auroc, scan_score
from hybriduad.metrics.surfaces import surface_figures
from hybriduad.metrics.voxels import (
    confusion,
    dice,
    false_positive_rate,
    precision,
    sensitivity,
)

__all__ = [
    "SIZES",
    "Detection",
    "Interval",
    "LesionCounts",
    "ScoreHistogram",
    "bootstrap",
    "bootstrap_pooled",
    "component_table",
    "confusion",
    "dice",
    "false_positive_rate",
    "lesion_detection",
    "lesion_f1",
    "lesion_precision",
    "lesion_recall",
    "match_lesions",
    "paired_difference",
    "precision",
    "scan_auroc",
    "scan_score",
    "sensitivity",
    "surface_figures",
]
