"""Named score histograms and a few numbers as one ``.npz``: what calibration and evaluation keep of a case."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.metrics import ScoreHistogram
from hybriduad.scan.volumes import write_atomically


def write_histograms(path: Path, histograms: Mapping[str, ScoreHistogram], **numbers: float) -> None:
    """Write histograms by name, and numbers; the file appears complete or not at all."""
    arrays: dict[str, np.ndarray] = {f"={name}": np.array(value) for name, value in numbers.items()}
    for name, histogram in histograms.items():
        arrays |= {f"{name}:{column}": values for column, values in histogram.to_arrays().items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def read_histograms(path: Path) -> tuple[dict[str, ScoreHistogram], dict[str, float]]:
    """The histograms and the numbers of :func:`write_histograms`.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    columns: dict[str, dict[str, np.ndarray]] = {}
    numbers: dict[str, float] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                if name.startswith("="):
                    numbers[name[1:]] = float(arrays[name])
                else:
                    histogram, _, column = name.rpartition(":")
                    columns.setdefault(histogram, {})[column] = arrays[name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError("unreadable histograms", where=path, got=str(error), mend="delete the file") from error
    return {name: ScoreHistogram.from_arrays(arrays) for name, arrays in columns.items()}, numbers
