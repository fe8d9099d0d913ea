"""The figure that shows what phantoms look like: subjects in columns, contrasts in rows, the lesion outlined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hybriduad.phantom.subject import Phantom


def picture(phantoms: Sequence[Phantom], path: str | Path, *, outline: bool = True) -> Path:
    """Write a PNG of one axial slice a phantom: where its lesion is largest, else through the lateral ventricles.

    Brightness runs from 0 to the 99.5th percentile inside the brain of each image; ``outline`` draws the lesion's
    border on the last row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    contrasts = list(phantoms[0].images)
    figure = Figure(figsize=(2.2 * len(phantoms), 2.7 * len(contrasts) + 0.3), facecolor="black")
    axes = figure.subplots(len(contrasts), len(phantoms), squeeze=False)
    for column, phantom in zip(axes.T, phantoms, strict=True):
        level = _slice(phantom)
        aspect = float(phantom.affine[1, 1] / phantom.affine[0, 0])
        for axis, name in zip(column, contrasts, strict=True):
            image = phantom.images[name]
            top = float(np.percentile(image[phantom.brain], 99.5))
            axis.imshow(image[:, :, level].T, origin="lower", cmap="gray", vmin=0, vmax=top, aspect=aspect)
            axis.set_axis_off()
        facts = phantom.attributes
        label = "healthy" if facts["pathology"] == "none" else facts["pathology"]
        column[0].set_title(f"{label}, {facts['age']} {facts['sex']}", color="white", fontsize=10)
        if outline and phantom.lesion[:, :, level].any():
            column[-1].contour(phantom.lesion[:, :, level].T, [0.5], colors="red", linewidths=0.8)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1 - 0.3 / figure.get_figheight(), wspace=0.02, hspace=0.02)
    FigureCanvasAgg(figure).print_png(str(path))
    return Path(path)


def _slice(phantom: Phantom) -> int:
    if phantom.lesion.any():
        return int(phantom.lesion.sum(axis=(0, 1)).argmax())
    inside = np.flatnonzero(phantom.brain.any(axis=(0, 1)))
    return int(inside[0] + 0.55 * (inside[-1] - inside[0]))
