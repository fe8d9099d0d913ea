"""An atlas that a user names: a label image in the template's space, and the names of its labels; nothing is shipped.

The names are a table as BIDS has it (``_dseg.tsv``): a column ``index`` and a column ``name``.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybriduad.core.errors import DataError
from hybriduad.scan.digests import file_digest
from hybriduad.scan.volumes import VolumeGrid, read_volume, to_ras

NOWHERE = "n/a"
"""The region of a lesion that no label reaches."""


@dataclass(frozen=True)
class Atlas:
    """``labels`` (X, Y, Z) int32 in RAS, 0 outside all regions, with an ``affine`` (4, 4) to millimetres of the
    template's space; ``names`` of the labels; ``digest`` of both files."""

    labels: np.ndarray
    affine: np.ndarray
    names: dict[int, str]
    digest: str

    def region(self, lesion: np.ndarray, grid: VolumeGrid, matrix: np.ndarray) -> tuple[str, float]:
        """The region that holds the most of a lesion, and the share of the lesion in it; of two the first label.

        ``lesion`` (X, Y, Z) bool, not empty, on ``grid``; ``matrix`` (4, 4) from millimetres of the scan to those of
        the template. A voxel has the label that lies nearest to its centre.
        """
        index = np.linalg.inv(self.affine) @ matrix @ grid.affine
        voxels = np.rint(np.argwhere(lesion) @ index[:3, :3].T + index[:3, 3]).astype(int)
        inside = ((voxels >= 0) & (voxels < self.labels.shape)).all(axis=1)
        held = np.bincount(self.labels[tuple(voxels[inside].T)], minlength=2)
        held[0] = 0
        if not held.any():
            return NOWHERE, 0.0
        label = int(held.argmax())
        return self.names[label], float(held[label] / len(voxels))


def read_atlas(labels: str | Path, names: str | Path | None = None) -> Atlas:
    """Read an atlas; ``names`` is by default the table of the image's name, ``.tsv`` in the place of ``.nii.gz``.

    Raises:
        DataError: an unusable image, values that are no labels, a table that is missing or lacks a column, an index
            that is no number or comes twice, or a label of the image without a name.
    """
    path = Path(labels)
    table = Path(names) if names is not None else path.with_name(re.sub(r"\.nii(\.gz)?$", "", path.name) + ".tsv")
    known = _read_names(table)
    data, affine, _ = to_ras(read_volume(path))
    whole = np.rint(data)
    if (np.abs(data - whole) > 1e-3).any() or whole.min() < 0:
        got = f"{data.min():g} to {data.max():g}"
        raise DataError("atlas of values that are no labels", where=path, got=got, expected="whole numbers from 0 on")
    if missing := sorted(set(np.unique(whole).astype(int).tolist()) - {0, *known}):
        mend = "name them in the table"
        raise DataError("labels of the atlas without a name", where=table, got=missing[:10], mend=mend)
    return Atlas(whole.astype(np.int32), affine, known, f"{file_digest(path)[:16]} {file_digest(table)[:16]}")


def _read_names(path: Path) -> dict[int, str]:
    expected = "a tab-separated table with the columns index and name"
    if not path.is_file():
        raise DataError("no names of the atlas's labels", where=path, expected=expected, mend="name it: --atlas-names")
    names: dict[int, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, dialect=csv.excel_tab):
                index = int(row["index"])
                if index in names:
                    raise DataError("names of an atlas with an index twice", where=path, got=index)
                names[index] = " ".join(row["name"].split())
    except (KeyError, ValueError, TypeError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("unusable names of an atlas", where=path, got=repr(error), expected=expected) from error
    return names
