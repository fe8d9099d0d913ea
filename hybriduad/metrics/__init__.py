"""Figures of merit, one meaning each, in numpy and scipy alone.

``voxels``: confusion and rates of masks. ``histogram``: AUPRC, AUROC and best-possible Dice of scores, exact under
merging. ``lesions``: hits and false alarms, lesion by lesion. ``intervals``: bootstrap over subjects.

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
    LesionCounts,
    component_table,
    lesion_detection,
    lesion_f1,
    lesion_precision,
    lesion_recall,
)
from hybriduad.metrics.voxels import (
    confusion,
    dice,
    false_positive_rate,
    precision,
    sensitivity,
)

__all__ = [
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
    "paired_difference",
    "precision",
    "sensitivity",
]
