"""The figure that shows what phantoms look like: subjects in columns, contrasts in rows, the lesion outlined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hybriduad.core.drawing import save_figure
from hybriduad.core.types import Case
from hybriduad.scan.volumes import read_mask, read_volume


def draw_cohort(cases: Sequence[Case], path: Path) -> None:
    """Write a PNG of one axial slice a phantom: where its lesion is largest, else through the lateral ventricles.

    Brightness runs from 0 to the 99.5th percentile inside the brain of each image; the lesion's border is drawn on the
    last row. ``cases`` are those of a cohort that :func:`hybriduad.phantom.cohort.write_cohort` wrote.

    Raises:
        DataError: a file that cannot be read.
    """
    from matplotlib.figure import Figure

    contrasts = list(cases[0].images)
    figure = Figure(figsize=(2.2 * len(cases), 2.7 * len(contrasts) + 0.3), facecolor="black")
    axes = figure.subplots(len(contrasts), len(cases), squeeze=False)
    for column, case in zip(axes.T, cases, strict=True):
        images = {name: read_volume(file) for name, file in case.images.items()}
        assert case.brain is not None
        brain = read_mask(case.brain).data
        lesion = np.zeros_like(brain) if case.lesion is None else read_mask(case.lesion).data
        level = _slice(brain, lesion)
        for axis, name in zip(column, contrasts, strict=True):
            data, spacing = images[name].data, images[name].grid.spacing_mm
            top = float(np.percentile(data[brain], 99.5))
            axis.imshow(
                data[:, :, level].T, origin="lower", cmap="gray", vmin=0, vmax=top, aspect=spacing[1] / spacing[0]
            )
            axis.set_axis_off()
        facts = case.attributes
        label = "healthy" if facts["pathology"] == "none" else facts["pathology"]
        column[0].set_title(f"{label}, {facts['age']} {facts['sex']}", color="white", fontsize=10)
        if lesion[:, :, level].any():
            column[-1].contour(lesion[:, :, level].T, [0.5], colors="red", linewidths=0.8)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1 - 0.3 / figure.get_figheight(), wspace=0.02, hspace=0.02)
    save_figure(figure, path)


def _slice(brain: np.ndarray, lesion: np.ndarray) -> int:
    if lesion.any():
        return int(lesion.sum(axis=(0, 1)).argmax())
    inside = np.flatnonzero(brain.any(axis=(0, 1)))
    return int(inside[0] + 0.55 * (inside[-1] - inside[0]))
