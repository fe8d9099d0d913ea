"""Samples of a training as its networks see them, as a picture: what is learnt from, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.core.drawing import slice_grid
from hybriduad.detector.inference import Detector
from hybriduad.training.samples import SampleStream

SHOWN = 6
"""Rows of the picture."""


def draw_samples(path: Path, stream: SampleStream, detector: Detector) -> None:
    """Rows of samples as the network sees them, always the same: image, truth, pseudo-healthy, map, probability."""
    # Step -1 is no step of the training, so these samples are never learnt from.
    batch = stream.samples(-1, SHOWN)
    kinds = [stream.kind(-1, index) for index in range(SHOWN)]
    maps = detector.slice_maps(batch)
    columns: list[tuple[str, Any]] = [("image", batch.image[:, 0].numpy()), ("lesion", batch.lesion.numpy())]
    if maps.reconstruction is not None:
        columns.append(("pseudo-healthy", maps.reconstruction[:, 0].cpu().numpy()))
    for title, values in (("reconstruction's map", maps.map), ("probability", maps.probability)):
        if values is not None:
            columns.append((title, values.cpu().numpy().astype(np.float64)))
    rows = [[values[row] for _, values in columns] for row in range(len(batch))]
    slice_grid(path, rows, [title for title, _ in columns], labels=kinds)
