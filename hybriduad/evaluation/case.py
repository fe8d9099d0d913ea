"""The figures of a case: its prediction against its truth."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybriduad.cohort.truth import Truth, read_truth
from hybriduad.core.errors import DataError
from hybriduad.core.types import WHITE, Case
from hybriduad.datasets._layout import LESION_FREE
from hybriduad.detector.thresholds import PARTS, Cutoff, encoded, scan_mask
from hybriduad.evaluation.histograms import read_histograms, write_histograms
from hybriduad.evaluation.outlines import equal_alarm_figures, outline_figures
from hybriduad.metrics import ScoreHistogram, match_lesions, scan_score
from hybriduad.networks.scoring import SSIM_RADIUS, ssim_map
from hybriduad.prediction.files import SUFFIXES
from hybriduad.scan.digests import file_digest
from hybriduad.scan.preparation import scan_on_grid
from hybriduad.scan.volumes import (
    read_mask,
    read_volume,
    same_grid,
    write_atomically,
)

FORMAT = 9
"""Part of a case's key: raised whenever :func:`evaluate_case` gives other numbers or refuses other files."""
RECORD_END = f"_{SUFFIXES['score']}.json"
"""How the record of a predicted case ends, see :mod:`hybriduad.prediction.cohort`."""
RECONSTRUCTION = (
    "l1_healthy",
    "l1_lesion",
    "l1_ratio",
    "ssim_healthy",
    "error_healthy",
    "error_lesion",
    "error_ratio",
)
"""The figures of a pseudo-healthy scan: against the scan, and errors against the same brain without its lesion."""
NAN = math.nan


@dataclass(frozen=True)
class CaseScores:
    """The figures of a case; undefined is ``nan``, and without a threshold those of a mask are absent.

    ``facts``: who, volumes, lesions, :data:`RECONSTRUCTION`. ``systems``: for each part of the prediction its
    figures. ``histograms``: for each part its scores in the region, from which pooled figures are computed.
    ``attributes``: those of the cohort's manifest, with ``dataset`` and ``health``. ``lesions``: the volume of each in
    ml; ``coverage``: for each part with a mask the share of each that it covers, a hit from 0.1 on.
    """

    facts: Mapping[str, Any]
    systems: Mapping[str, Mapping[str, float]]
    histograms: Mapping[str, ScoreHistogram]
    attributes: Mapping[str, str]
    lesions: tuple[float, ...] = ()
    coverage: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The case's BIDS entities."""
        return str(self.facts["case"])

    @property
    def subject(self) -> tuple[str, str]:
        """The person: (dataset, subject)."""
        return str(self.facts["dataset"]), str(self.facts["subject"])

    @property
    def has_lesion(self) -> bool:
        """Whether the truth holds a lesion voxel outside ``ignore``."""
        return bool(self.facts["lesion_voxels"])

    @property
    def control(self) -> bool:
        """Whether it is a lesion-free scan of a person who is not known to be ill; see
        :class:`hybriduad.cohort.truth.Truth`."""
        return bool(self.facts.get("control", not self.has_lesion))

    @property
    def set_aside(self) -> bool:
        """Whether it is neither a case with a lesion nor a control, and so in no figure of either."""
        return not self.has_lesion and not self.control


def case_key(record: Path, case: Case, cutoffs: Mapping[str, Cutoff]) -> str:
    """What a case's figures depend on, as a sha256: the prediction's record, what masks are cut by, and the truth.

    Raises:
        DataError: as :func:`truth_key`, or the record or the same brain without its lesion cannot be read.
    """
    case.check(LESION_FREE.values())
    twins = {contrast: file_digest(path) for contrast, path in case.lesion_free.items()}
    depends = [FORMAT, encoded(cutoffs), case.health, case.reference, twins]
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode())
    digest.update(bytes.fromhex(file_digest(record)))
    digest.update(truth_key(case).encode())
    return digest.hexdigest()


def truth_key(case: Case) -> str:
    """The sha256 of a case's truth: the same for two evaluations that may be compared.

    That is the content of its lesion and ignore files and the labels in them that count.

    Raises:
        DataError: a file cannot be read, or labels that are no whole numbers.
    """
    case.check(("lesion", "ignore"))
    digest = hashlib.sha256()
    for kind, path in (("lesion", case.lesion), ("ignore", case.ignore)):
        digest.update(b"-" if path is None else bytes.fromhex(file_digest(path)))
        if path is not None and (labels := case.mask_labels(kind)):
            digest.update(json.dumps(labels).encode())
    return digest.hexdigest()


def evaluate_case(folder: Path, record: Mapping[str, Any], case: Case, cutoffs: Mapping[str, Cutoff]) -> CaseScores:
    """Compare the prediction in ``folder`` whose ``record`` is given with the truth of its case.

    The mask of a part is that of its cutoff: the threshold comes from the scores of the brain's voxels, as in
    ``predict``, and never from the truth.

    Raises:
        DataError: a file is missing or unusable, or the truth is on none of the case's grids.
    """
    parts: Mapping[str, str] = record["parts"]
    if "brain" not in parts:
        raise DataError("prediction without its brain mask", where=case.name, mend="predict with --maps all")
    brain = read_mask(folder / parts["brain"])
    truth = read_truth(case, brain.data, brain.grid, record["notes"])
    systems, histograms, coverage = {}, {}, {}
    for part in PARTS:
        if part not in parts:
            continue
        values = _on_grid(folder / parts[part], truth)
        scores = truth.scores(values)
        histograms[part] = truth.histogram(scores)
        systems[part] = _ranked(histograms[part]) | {"scan_score": scan_score(scores[truth.region], truth.voxel_ml)}
        systems[part] |= equal_alarm_figures(scores, histograms[part], truth)
        if (cutoff := cutoffs.get(part)) is not None:
            whole, threshold = scan_mask(cutoff, values, brain.data, truth.voxel_ml)
            mask = truth.crop(whole) & truth.region
            detection = match_lesions(mask, truth.lesion)
            systems[part] |= outline_figures(mask, detection, truth, threshold)
            coverage[part] = detection.lesions.shares
    lesions = match_lesions(truth.lesion, truth.lesion).lesions
    facts = {
        "dataset": case.dataset,
        "subject": case.subject,
        "session": case.session,
        "run": case.run,
        "case": case.name,
        "truth": truth_key(case),
        "region": truth.region_digest,
        "brain_method": record["notes"].get("brain", {}).get("method", ""),
        "brain_ml": float(truth.brain.sum()) * truth.voxel_ml,
        "lesion_ml": float(truth.lesion.sum()) * truth.voxel_ml,
        "lesion_voxels": int(truth.lesion.sum()),
        "control": truth.control,
        "lesion_voxels_outside_brain": truth.outside,
        "ignored_voxels": truth.ignored,
        "lesions": len(lesions.voxels),
        "lesion_free_slices": int(truth.clear.sum()),
        **_reconstruction(folder, record, case, truth),
        "seconds": record.get("seconds", NAN),
    }
    volumes = tuple((lesions.voxels * truth.voxel_ml).tolist())
    return CaseScores(facts, systems, histograms, attributes_of(case), volumes, coverage)


def attributes_of(case: Case) -> dict[str, str]:
    """What tables can be grouped by: the manifest's other columns, the data set and the health."""
    return {**case.attributes, "dataset": case.dataset, "health": case.health}


def _ranked(histogram: ScoreHistogram) -> dict[str, float]:
    best, at = histogram.best_dice()
    return {
        "auprc": histogram.average_precision(),
        "auroc": histogram.auroc(),
        "best_dice": best,
        "best_dice_threshold": at,
    }


def _reconstruction(folder: Path, record: Mapping[str, Any], case: Case, truth: Truth) -> dict[str, float]:
    """L1 and SSIM between scan and pseudo-healthy scan, over 2.5 times the brain's median and clipped to [0, 1].

    SSIM is that of :func:`hybriduad.networks.scoring.ssim_map` slice by slice, its mean over healthy tissue. An error
    is the L1 between pseudo-healthy scan and the same brain without its lesion, where the case has one.
    """
    notes = record["notes"]
    reference = notes.get("reference", "")
    contrast = notes.get("shown", reference)
    median = notes.get("intensity_median", {}).get(contrast)
    if "reconstruction" not in record["parts"] or contrast not in case.images or not median:
        return dict.fromkeys(RECONSTRUCTION, NAN)

    def unit(values: np.ndarray) -> np.ndarray:
        """(H, W, S) in [0, 1]."""
        return truth.crop(np.clip(values / np.float32(WHITE * median), 0, 1))

    def acquired(images: Mapping[str, Path]) -> np.ndarray:
        """As :func:`unit`; only the reference must lie on the grid of the prediction."""
        if contrast == reference:
            return unit(_on_grid(images[contrast], truth))
        return unit(scan_on_grid(images, contrast, truth.grid, notes))

    tissue, lesion = truth.brain & truth.region & ~truth.lesion, truth.brain & truth.lesion
    reconstruction = unit(_on_grid(folder / record["parts"]["reconstruction"], truth))
    scan = acquired(case.images)
    twin = acquired(case.lesion_free) if contrast in case.lesion_free else None
    figures: dict[str, float] = {}
    for name, other in (("l1", scan), ("error", twin)):
        difference = np.full(scan.shape, NAN) if other is None else np.abs(other - reconstruction)
        healthy, inside = _mean(difference[tissue]), _mean(difference[lesion])
        ratio = inside / healthy if healthy > 0 else NAN
        figures |= {f"{name}_healthy": healthy, f"{name}_lesion": inside, f"{name}_ratio": ratio}
    large = min(tissue.shape[:2]) > SSIM_RADIUS
    return figures | {"ssim_healthy": _mean(_similarity(scan, reconstruction)[tissue]) if large else NAN}


def _similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """SSIM (H, W, S) of two volumes in [0, 1], slice by slice."""
    a, b = (
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(2 * volume - 1, -1, 0)))[:, None]
        for volume in (first, second)
    )
    return np.moveaxis(np.asarray(ssim_map(a, b)[:, 0]), 0, -1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else NAN


def _on_grid(path: Path, truth: Truth) -> np.ndarray:
    """(X, Y, Z) float32 of a file that must lie on the prediction's grid, in its orientation."""
    image = read_volume(path, constant_ok=True)
    if image.grid.orientation != truth.grid.orientation or not same_grid(image.grid, truth.grid):
        raise DataError(
            "file on another grid than the predicted brain",
            where=path,
            got=image.grid.shape,
            expected=truth.grid.shape,
            mend="predict this cohort again",
        )
    return image.data


def save_case(folder: Path, key: str, scores: CaseScores) -> None:
    """Write ``CASE.npz`` and then ``CASE.json``, the record that the case is complete."""
    write_histograms(folder / f"{scores.name}.npz", scores.histograms)
    content = {
        "key": key,
        "facts": _plain(scores.facts),
        "systems": _plain(scores.systems),
        "lesions": scores.lesions,
        "coverage": scores.coverage,
    }
    write_atomically(folder / f"{scores.name}.json", json.dumps(content, indent=1).encode())


def stored_key(folder: Path, name: str) -> str | None:
    """The key under which the figures of a case were stored; None where there are none that can be read."""
    try:
        return str(json.loads((folder / f"{name}.json").read_text())["key"])
    except (OSError, ValueError, KeyError):
        return None


def load_case(folder: Path, name: str, attributes: Mapping[str, str]) -> CaseScores:
    """What :func:`save_case` wrote; without ``lesions`` if an earlier version did.

    Raises:
        DataError: a file is missing or damaged.
    """
    path = folder / f"{name}.json"
    try:
        content = json.loads(path.read_text())
        facts, systems = _with_nan(content["facts"]), _with_nan(content["systems"])
        coverage = {part: tuple(shares) for part, shares in content.get("coverage", {}).items()}
    except (OSError, ValueError, KeyError) as error:
        raise DataError("unreadable figures of a case", where=path, got=repr(error), mend="--overwrite") from error
    histograms, _ = read_histograms(folder / f"{name}.npz")
    return CaseScores(facts, systems, histograms, attributes, tuple(content.get("lesions", ())), coverage)


def _plain(value: Any) -> Any:
    """nan as null, which every JSON reader knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _with_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_nan(item) for key, item in value.items()}
    return NAN if value is None else value
