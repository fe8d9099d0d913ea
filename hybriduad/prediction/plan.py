"""What a prediction of a cohort would do, without doing it: what is left, what is wrong, and what it takes."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from hybriduad.config.runs import NATIVE, Anatomy
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.core.processes import peak_mb, usable_cores
from hybriduad.core.types import Case, Split
from hybriduad.detector.bundle import Bundle, verify
from hybriduad.detector.loading import load_detector
from hybriduad.prediction import failures, runners
from hybriduad.prediction.cohort import atlas_of, cases_of
from hybriduad.prediction.files import DEFAULT_MAPS, SUFFIXES, check_same_scan, record_of, refusal, wanted_parts
from hybriduad.scan.brain_ways import brain_name, chosen
from hybriduad.scan.grid import Grid, find_slice_axis
from hybriduad.scan.slices import blank_slices
from hybriduad.scan.template import template
from hybriduad.scan.volumes import VolumeGrid, check_mask_grid, read_grid, spacing_of

SLICES = 16
"""In the batch of blank slices that is timed."""
LEAST = 3
"""Fewest cases done before that an estimate is made of."""


@dataclass(frozen=True)
class Estimate:
    """``seconds`` of a case in one worker (median), the most memory of a worker, and what both stand on."""

    seconds: float
    memory_mb: float
    basis: str


@dataclass(frozen=True)
class Plan:
    """What would become of each case: ``to do``, ``done``, ``failed`` before, or ``wrong``, with why."""

    out: Path
    cases: dict[str, tuple[Literal["to do", "done", "failed", "wrong"], str]]
    workers: int
    estimate: Estimate | None

    def of(self, state: str) -> list[str]:
        """The names of the cases in that state."""
        return [name for name, (stated, _) in self.cases.items() if stated == state]

    @property
    def wrong(self) -> bool:
        """Whether a case would fail or failed before."""
        return bool(self.of("wrong") or self.of("failed"))

    def __str__(self) -> str:
        lines = [f"{name}: {state}{f': {why}' if why else ''}" for name, (state, why) in self.cases.items()]
        counts = ", ".join(f"{len(self.of(state))} {state}" for state in ("to do", "done", "failed", "wrong"))
        lines.append(f"{counts}, in {self.out}; nothing was done, and of scans only the headers were read")
        if self.estimate is not None:
            hours = len(self.of("to do")) * self.estimate.seconds / self.workers / 3600
            lines.append(
                f"estimate: {self.estimate.seconds:.1f} s a case, {hours:.2f} h in all with {self.workers} "
                f"{'worker' if self.workers == 1 else 'workers'}, {self.estimate.memory_mb:.0f} MB each; "
                f"{self.estimate.basis}"
            )
        return "\n".join(lines)


def plan_cohort(
    bundle: str | Path,
    cohort: str | Path | Sequence[Case],
    *,
    out: str | Path,
    maps: Sequence[str] = DEFAULT_MAPS,
    rule: str | None = None,
    device: str = "auto",
    split: Split | None = None,
    contrast: str | None = None,
    brain: str | None = None,
    atlas: str | Path | None = None,
    atlas_names: str | Path | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    engine: str | None = None,
    nprocs: int | None = None,
    log_file: Path | None = None,
) -> Plan:
    """What :func:`hybriduad.prediction.cohort.predict_cohort` would do with the same arguments; writes nothing.

    Raises:
        As :func:`hybriduad.prediction.cohort.predict_cohort`.
    """
    model, folder, wanted = verify(bundle), Path(out), wanted_parts(maps)
    cases = cases_of(cohort, split, contrast, shard)
    model.thresholds.of("score", rule)
    if shard is not None and overwrite:
        raise ConfigError("--overwrite in a shard, which would remove what others do", mend="empty the folder first")
    way = brain_name(chosen(model.anatomy, brain))
    named = atlas_of(model, atlas, atlas_names)
    asked = way if brain else None
    if error := refusal(folder, model, wanted, rule, asked, named, overwrite=overwrite, log_file=log_file):
        raise error
    states: dict[str, tuple[Literal["to do", "done", "failed", "wrong"], str]] = {}
    grids: list[VolumeGrid] = []
    for case in cases:
        record = record_of(folder, case)
        try:
            case.check((*model.anatomy.contrasts, case.reference, "brain"))
            if record.is_file() and not overwrite:
                check_same_scan(record, case, model.anatomy.contrasts)
                states[case.name] = ("done", "")
                continue
            before = None if retry_failed or overwrite else failures.failed_for_good(folder, case)
            if before is not None:
                states[case.name] = ("failed", f"{before.reason} (on {before.time}; --retry-failed tries it again)")
                continue
            grids.append(_checked(case, model))
            states[case.name] = ("to do", "")
        except DataError as error:
            states[case.name] = ("wrong", str(error))
    runner = runners.chosen(engine, nprocs, None)
    workers = 1 if runner == "local" else min(nprocs or usable_cores(), max(len(cases), 1))
    counts = [_slices(grid, model.anatomy) for grid in grids]
    estimate = _of_records(folder) or _of_blank_slices(bundle, device, grids, counts) if grids else None
    return Plan(folder, states, workers, estimate)


def _checked(case: Case, model: Bundle) -> VolumeGrid:
    """The grid of a case's reference scan, if the headers of what would be read allow a prediction.

    Raises:
        DataError: a missing or unreadable file, no contrast of the bundle, another direction, a brain mask elsewhere.
    """
    names = model.anatomy.contrasts
    if not any(name in case.images for name in names):
        needed = f"one of {list(names)}"
        raise DataError("no contrast that the bundle knows", where=case.name, got=sorted(case.images), expected=needed)
    if missing := [name for name in model.needed if name not in case.images]:
        got = f"{sorted(case.images)} without {', '.join(missing)}"
        raise DataError("contrast that the bundle needs", where=case.name, got=got, expected=list(names))
    reference = case.reference_contrast(names)
    if reference not in case.images:
        raise DataError("missing reference contrast", where=case.name, got=sorted(case.images), expected=reference)
    grids = {name: read_grid(path) for name, path in case.images.items() if name in {*names, reference}}
    direction = Grid(
        grids[reference], _axis(grids[reference]), model.anatomy.size, (0.0, 0.0), (1.0, 1.0), ()
    ).direction
    expected = model.record["direction"]
    if model.anatomy.space == NATIVE and direction != expected:
        raise DataError("another acquisition direction", where=case.name, got=direction, expected=expected)
    if case.brain is not None:
        check_mask_grid(case.brain, read_grid(case.brain), case.images, "brain")
    return grids[reference]


def _axis(grid: VolumeGrid) -> int:
    return find_slice_axis(spacing_of(grid.affine_ras))


def _of_records(folder: Path) -> Estimate | None:
    """From the cases that are done in the folder, if there are some."""
    seconds, memory = [], []
    for path in folder.glob(f"sub-*/**/anat/*_{SUFFIXES['score']}.json"):
        try:
            record = json.loads(path.read_text())
            seconds.append(float(record["seconds"]))
            memory.append(float(record["memory_mb"]))
        except (OSError, ValueError, KeyError, TypeError):  # of another version
            continue
    if len(memory) < LEAST:
        return None
    basis = f"as the {len(memory)} cases that are done there: the median of their seconds, the most of their memory"
    return Estimate(statistics.median(seconds), max(memory), basis)


def _slices(grid: VolumeGrid, anatomy: Anatomy) -> int:
    """How many slices the networks see of a scan: its own, or in a template's space those of the template."""
    if anatomy.spacing_mm is None:
        return grid.shape_ras[_axis(grid)]
    (_, _, slices), _ = template().grid(anatomy.size, anatomy.spacing_mm)
    return slices


def _of_blank_slices(bundle: str | Path, device: str, grids: Sequence[VolumeGrid], counts: Sequence[int]) -> Estimate:
    """From a batch of blank slices through the networks, now and on this machine, for so many slices of each scan."""
    detector = load_detector(bundle, device)
    detector.slice_maps(blank_slices(detector.anatomy, SLICES))
    began = time.perf_counter()
    detector.slice_maps(blank_slices(detector.anatomy, SLICES))
    slice_s = (time.perf_counter() - began) / SLICES
    voxels = max(math.prod(grid.shape) for grid in grids)
    basis = (
        f"networks alone, from {SLICES} blank slices now on {detector.device} in {torch.get_num_threads()} threads; "
        "reading, preparing and writing come on top. Memory: this process with the model, and ten volumes of 4 bytes"
    )
    return Estimate(statistics.median(counts) * slice_s, peak_mb() + 40 * voxels / 1e6, basis)
