"""Prepared cases in a folder, so that several runs prepare a scan once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from hybriduad.config.runs import NATIVE, Anatomy
from hybriduad.core.aside import folder_aside, remove_abandoned
from hybriduad.core.errors import DataError, ToolError
from hybriduad.core.types import Case
from hybriduad.datasets._layout import MASKS
from hybriduad.scan import template_space
from hybriduad.scan.brain_ways import brain_key
from hybriduad.scan.digests import file_digest, mask_files
from hybriduad.scan.grid import Grid
from hybriduad.scan.preparation import FORMAT, Prepared, prepare
from hybriduad.scan.template_grid import TemplateGrid

_ASIDE = ".partial-"
"""Begins the name of an entry that is being built."""
VALID = "valid.npy"
"""Only in entries where some contrast covers just a part of the scan."""
SCAN_BRAIN = "scan_brain.npy"
BIAS = "bias.npy"
"""Only in entries in template space."""
_MASKS = ("brain", "foreground", "lesion", "ignore")
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError)
"""What reading an entry raises that is not as it was written."""
log = logging.getLogger(__name__)


class PreparedCache:
    """Prepared cases in a folder, memory-mapped, keyed by the content of their files and by what matters of the config.

    Safe for several processes: an entry is built aside and renamed into place. What a killed process left half built is
    removed by the next process that opens the cache. A damaged entry is made anew. What this user may not read or write
    is prepared without the cache, and the log says so once.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, self._told = Path(folder), False
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.folder, _ASIDE)

    def get(self, case: Case, anatomy: Anatomy, direction: str | None = None) -> Prepared:
        """As :func:`prepare`; the arrays of the result are read-only and memory-mapped.

        Raises:
            DataError: as :func:`prepare`.
            ToolError: an entry is damaged at once when it is made.
        """
        entry = self.folder / _cache_key(case, anatomy, direction)
        damaged = False
        try:
            if entry.is_dir():
                return _load(entry)
        except PermissionError as error:
            self._tell(error)
            return prepare(case, anatomy, direction)
        except DAMAGED as error:
            damaged = True
            log.warning("damaged cache entry %s is made anew: %s", entry, error)
        prepared = prepare(case, anatomy, direction)
        try:
            if damaged:
                self._remove(entry)
            self._build(entry, prepared)
            return _load(entry)
        except PermissionError as error:
            self._tell(error)
            return prepared
        except DAMAGED as error:
            if isinstance(error, OSError):  # such as a full disk
                raise
            raise ToolError("damaged cache entry", where=entry, got=str(error), mend="look at that disk") from error

    def _tell(self, error: PermissionError) -> None:
        if not self._told:
            log.warning("scans are prepared without the cache: %s", error)
        self._told = True

    def _remove(self, entry: Path) -> None:
        with folder_aside(self.folder, _ASIDE) as aside, suppress(FileNotFoundError):  # another process was faster
            os.rename(entry, aside / entry.name)

    def _build(self, entry: Path, prepared: Prepared) -> None:
        with folder_aside(self.folder, _ASIDE) as partial:
            np.save(partial / "image.npy", prepared.image, allow_pickle=False)
            masks = np.stack([getattr(prepared, name) for name in _MASKS])
            np.save(partial / "masks.npy", masks, allow_pickle=False)
            if not (prepared.valid == _everywhere(prepared.present, prepared.image.shape)).all():
                np.save(partial / VALID, prepared.valid, allow_pickle=False)
            np.save(partial / SCAN_BRAIN, prepared.scan_brain, allow_pickle=False)
            if prepared.bias is not None:
                np.save(partial / BIAS, prepared.bias, allow_pickle=False)
            record = {
                "present": prepared.present.tolist(),
                "has_lesion_mask": prepared.has_lesion_mask,
                "grid": prepared.grid.to_json(),
                "notes": prepared.notes,
            }
            (partial / "record.json").write_text(json.dumps(record))
            try:
                os.rename(partial, entry)
            except OSError:
                if not entry.is_dir():  # otherwise another process was faster, with the same content
                    raise


def _load(entry: Path) -> Prepared:
    """What is in an entry; of a damaged one the error is among :data:`DAMAGED`."""
    record = json.loads((entry / "record.json").read_text())
    image = np.load(entry / "image.npy", mmap_mode="r", allow_pickle=False)
    masks = np.load(entry / "masks.npy", mmap_mode="r", allow_pickle=False)
    if (entry / VALID).exists():
        valid = np.load(entry / VALID, mmap_mode="r", allow_pickle=False)
    else:
        valid = _everywhere(np.array(record["present"]), image.shape)
    scan_brain = np.load(entry / SCAN_BRAIN, mmap_mode="r", allow_pickle=False)
    shaded = (entry / BIAS).exists()
    bias = np.load(entry / BIAS, mmap_mode="r", allow_pickle=False) if shaded else None
    kind = Grid if "slice_axis" in record["grid"] else TemplateGrid
    grid = kind.from_json(record["grid"])
    return Prepared(
        image=image,
        valid=valid,
        **dict(zip(_MASKS, masks, strict=True)),
        has_lesion_mask=record["has_lesion_mask"],
        spacing_mm=grid.spacing_mm,
        grid=grid,
        scan_brain=scan_brain,
        bias=bias,
        notes=record["notes"],
    )


def _everywhere(present: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(C, H, W, S) bool: True for contrasts that are ``present`` (C,), False for others; a view without a copy."""
    return np.broadcast_to(present[:, None, None, None], shape)


def _cache_key(case: Case, anatomy: Anatomy, direction: str | None) -> str:
    reference = case.reference_contrast(anatomy.contrasts)
    case.check((*anatomy.contrasts, reference, *MASKS))
    digests: dict[str, str | None] = {}
    for name, path in {**dict(sorted(case.images.items())), **mask_files(case)}.items():
        try:
            digests[name] = file_digest(path)
        except DataError:
            if name not in case.images or name in {*anatomy.contrasts, reference}:
                raise
            digests[name] = None  # at most the grid of this image would have been used
    labels = [case.mask_labels(kind) for kind in mask_files(case)]
    config: list[object] = [FORMAT, list(anatomy.contrasts), anatomy.space, anatomy.size, reference, direction]
    config += [labels, digests]
    if anatomy.space != NATIVE:  # what native entries never depended on, so that they keep their keys
        config += [template_space.FORMAT, anatomy.spacing_mm]
    if case.brain is None and (way := brain_key(anatomy)):
        config.append(way)
    return hashlib.sha256(json.dumps(config).encode()).hexdigest()[:32]
