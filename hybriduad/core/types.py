"""The data types that every room shares, and the conventions behind them, stated once.

Axes
    Volumes are ``(C, X, Y, Z)`` in RAS orientation: +X right, +Y front, +Z up. On the model grid a volume is
    ``(C, H, W, S)``: the two in-plane axes in RAS order (x, y for axial slices) and the slice axis last.
    Batches are ``(B, C, H, W)``. ``C`` counts contrasts, in the order of the bundle; one contrast is ``C = 1``.
Ranges
    Model images lie in [-1, 1] with background -1. Scores, probabilities and anomaly maps lie in [0, 1].
Units
    Millimetres and millilitres, named so: ``spacing_mm``, ``volume_ml``.
Masks
    ``foreground`` is the head and serves intensity scaling only. ``brain`` is where lesions are possible and scores
    count. ``ignore`` voxels are neither lesion nor healthy and enter no loss and no figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hybriduad.core.errors import DataError

Health = Literal["healthy", "lesion", "unknown"]
Split = Literal["train", "validation", "test", ""]
Part = Literal["score", "probability", "map", "intensity", "asymmetry"]
"""The maps of a :class:`Prediction` that rank voxels."""
BACKGROUND = -1.0
WHITE = 2.5
"""Multiple of the brain's median intensity that becomes 1 on the model grid; brighter is clipped."""


@dataclass(frozen=True)
class Case:
    """One scan session of one subject: where its images and masks are, and what is known of it.

    ``images`` maps a contrast ("FLAIR", "T1w", ...) to a file; their grids may differ. ``reference`` is the contrast
    whose grid outputs and masks use, known to the bundle or not; "" means the first of the bundle's contrasts that the
    case has. A missing lesion mask never means "healthy": that is what ``health`` is for. ``attributes`` carries every
    other manifest column. ``lesion_free`` maps a contrast to a scan of the same brain without its lesion, as only
    phantoms have: a truth that nothing is learnt from. ``faults`` says of a contrast or mask ("lesion": the truth), or
    with "" of the whole case, why it cannot be used: :meth:`check` raises it where it is needed, so that no other case
    is stopped.
    """

    dataset: str
    subject: str
    images: Mapping[str, Path]
    session: str = ""
    run: str = ""
    reference: str = ""
    brain: Path | None = None
    lesion: Path | None = None
    ignore: Path | None = None
    health: Health = "unknown"
    split: Split = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    lesion_free: Mapping[str, Path] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)

    def check(self, parts: Iterable[str]) -> None:
        """Make sure that nothing is wrong with these parts: contrasts, masks or columns of scans without lesion.

        Raises:
            DataError: the case has a fault in one of them, or as a whole.
        """
        if fault := next((self.faults[part] for part in ("", *parts) if part in self.faults), ""):
            raise DataError(fault)

    @property
    def name(self) -> str:
        """The BIDS entities: ``sub-X[_ses-Y][_run-Z]``."""
        parts = [f"sub-{self.subject}"]
        if self.session:
            parts.append(f"ses-{self.session}")
        if self.run:
            parts.append(f"run-{self.run}")
        return "_".join(parts)

    @property
    def place(self) -> Path:
        """Where its files lie in a BIDS folder: ``sub-X[/ses-Y]/anat``."""
        session = [f"ses-{self.session}"] if self.session else []
        return Path(f"sub-{self.subject}", *session, "anat")

    def mask_labels(self, kind: str) -> tuple[int, ...]:
        """The values of the ``lesion`` or ``ignore`` file that count, from the column ``<kind>_labels``; () for any.

        Raises:
            DataError: the column holds something else than whole numbers.
        """
        text = self.attributes.get(f"{kind}_labels", "")
        try:
            return tuple(int(label) for label in text.split())
        except ValueError as error:
            raise DataError(f"bad {kind}_labels", where=self.name, got=repr(text), expected="such as '1 4'") from error

    def reference_contrast(self, contrasts: tuple[str, ...]) -> str:
        """The contrast whose grid outputs use: ``reference``, else the first of ``contrasts`` that the case has."""
        if self.reference:
            return self.reference
        return next((name for name in contrasts if name in self.images), next(iter(self.images), ""))

    def shown_contrast(self, contrasts: tuple[str, ...]) -> str:
        """The contrast of the pseudo-healthy scan: the reference if it is one of ``contrasts``, else the first of them
        that the case has, "" if none."""
        there = [name for name in contrasts if name in self.images]
        return self.reference if self.reference in there else next(iter(there), "")


@dataclass(frozen=True)
class Corruption:
    """An image that an anomaly generator altered, and where.

    ``image`` (C, *space) float32 in [-1, 1]; ``lesion`` (*space) bool, the target: what the generator says
    of the extent of its anomaly, visible or not; ``visibility`` (*space) float32 in [0, 1], a soft target: how visible
    the change is, or the factor by which foreign tissue was blended in, 0 outside the lesion; ``ignore``
    (*space) bool, tissue that moved outside the lesion, and the border's faintest part: too much changed to be healthy,
    too little to be lesion.
    """

    image: np.ndarray
    lesion: np.ndarray
    visibility: np.ndarray
    ignore: np.ndarray


@dataclass
class Batch:
    """Slices as training and inference see them, wherever their masks came from.

    ``image`` (B, C, H, W) in [-1, 1]; ``healthy`` the clean target, equal to image where nothing was painted;
    ``valid`` (B, C, H, W) bool, the voxels that a contrast's scan covers, none where the case lacks it (others are
    background); ``brain``, ``lesion``, ``ignore`` (B, H, W) bool; ``target`` (B, H, W) float32 in [0, 1];
    ``spacing_mm`` (B, 2); ``keys`` (B,) int64 of :mod:`hybriduad.core.rng`; ``case_index`` and ``slice_index`` (B,)
    int64.
    """

    image: Tensor
    healthy: Tensor
    valid: Tensor
    brain: Tensor
    lesion: Tensor
    ignore: Tensor
    target: Tensor
    spacing_mm: Tensor
    keys: Tensor
    case_index: Tensor
    slice_index: Tensor

    def __len__(self) -> int:
        return int(self.image.shape[0])

    @property
    def present(self) -> Tensor:
        """Which contrasts cover at least a voxel of the slice: (B, C) bool."""
        return self.valid.flatten(2).any(dim=2)

    def to(self, device: torch.device | str) -> Batch:
        """A copy on ``device``; ``keys`` stay on the CPU, where the keyed generators live."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "keys"}
        return replace(self, **moved)

    def mirrored(self) -> Batch:
        """The slices mirrored along H; ``keys`` stay, so noise does too.

        Only for the directions of :data:`hybriduad.scan.grid.SIDED`, where H runs from left to right: a sagittal slice
        would have front and back swapped.
        """
        spatial = ("image", "healthy", "valid", "brain", "lesion", "ignore", "target")
        return replace(self, **{name: getattr(self, name).flip(-2) for name in spatial})

    @staticmethod
    def stack(batches: list[Batch]) -> Batch:
        """Concatenate along B."""
        return Batch(**{f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(Batch)})


@dataclass
class Prediction:
    """What a detector says of one case. A part that the bundle lacks is ``None``, not zero.

    Maps are (X, Y, Z) float32 in [0, 1] and ``mask`` bool, on the grid of the scan in the file's orientation
    (``grid``, a :class:`hybriduad.scan.volumes.VolumeGrid`) after :func:`hybriduad.prediction.case.predict_case`, on
    the model grid (H, W, S) as the detector gives them.
    ``score`` is the fused anomaly score, ``probability`` the segmenter's, ``map`` the reconstruction's anomaly map,
    ``uncertainty`` the spread of the probability over the reconstructions, in [0, 0.5]; ``intensity`` plain intensity
    and ``asymmetry`` that of left and right, the baselines; ``reconstruction`` is in the scan's intensity units,
    (C, X, Y, Z); ``brain`` the region where scores count. ``mask`` is where the score reaches
    ``threshold``. ``notes`` goes into the sidecar.
    """

    brain: np.ndarray
    score: np.ndarray | None = None
    probability: np.ndarray | None = None
    map: np.ndarray | None = None
    intensity: np.ndarray | None = None
    asymmetry: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    reconstruction: np.ndarray | None = None
    mask: np.ndarray | None = None
    grid: Any = None
    threshold: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
