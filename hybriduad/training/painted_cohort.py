"""A half-real cohort: an anomaly painted into every healthy scan of a cohort, on the scan's own voxels, as BIDS."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.cohort.manifest import read_cohort
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core.errors import DataError, reason_of
from hybriduad.core.outcome import Outcome
from hybriduad.core.types import Case
from hybriduad.scan.digests import file_digest
from hybriduad.scan.volumes import read_volume, write_volume
from hybriduad.training.native_volume import NativeVolume, native_volume
from hybriduad.training.painted_files import (
    begin_folder,
    describe_folder,
    mask_path,
    record_path,
    scan_path,
    write_record,
)
from hybriduad.training.painting import paint_volume, run_with_anomalies
from hybriduad.training.samples import for_contrasts

log = logging.getLogger(__name__)

KEPT_VOLUMES = 3
"""Scans that stay in memory, for the next cases to take tissue from."""


def paint_cohort(
    config: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> Outcome:
    """Paint an anomaly into every healthy case of a cohort and write them as BIDS; a case that was done is kept.

    Of a scan every voxel outside lesion and ignore is as it was. Contrasts on other grids than the reference scan get
    the change, interpolated. What is painted depends on the config's anomalies and seed, on whose scan it is, and,
    where a generator takes foreign tissue, on the other healthy cases.

    Args:
        config: path or name of a shipped run config: its ``anomalies``, ``seed`` and, where stated, the contrasts of
            its ``anatomy`` are used, else all contrasts of a case. Generators that need labels are left out.
        cohort: manifest CSV or BIDS folder; cases whose ``health`` is not "healthy" are left out.
        out: the folder, which ``index bids`` reads.
        overrides: ``dotted.key=value``.
        overwrite: empty a folder of painted scans first.

    Raises:
        ConfigError: an unusable config, no anomaly that needs no labels, or something else in ``out``.
        DataError: the cohort cannot be read, has no healthy case, or is of several data sets.
    """
    run, anomalies = run_with_anomalies(config, overrides)
    contrasts = run.anatomy.contrasts if run.anatomy is not None else None
    cases = [case for case in read_cohort(cohort) if case.health == "healthy"]
    if not cases:
        raise DataError("no healthy case to paint into", where=cohort, expected="cases with health 'healthy'")
    if len(datasets := sorted({case.dataset for case in cases})) > 1:
        mend = "paint each into a folder of its own"
        raise DataError("cases of several data sets", where=cohort, got=datasets, mend=mend)
    folder = Path(out)
    request = {
        "anomalies": [anomaly.model_dump(mode="json") for anomaly in anomalies],
        "seed": run.seed,
        "contrasts": contrasts,
        "dataset": datasets[0],
        "cases": [case.name for case in cases],
    }
    begin_folder(folder, request, overwrite)
    painter = _Painter(folder, anomalies, run.seed, _Volumes(cases))
    outcome = Outcome(folder)
    people: dict[str, dict[str, str]] = {}
    for case in cases:
        began = time.perf_counter()
        chosen = tuple(name for name in contrasts or case.images if name in case.images)
        try:
            case.check(contrasts or case.faults)
            record = painter.record(case, chosen)
            if record is None:
                record = painter.paint(case, chosen, contrasts or tuple(case.images))
                outcome.done.append(case.name)
                log.info("%s: %s, %.1f s", case.name, record["generator"], time.perf_counter() - began)
            else:
                outcome.kept.append(case.name)
        except Exception as error:  # no error of a case ends the others
            outcome.failed[case.name] = reason_of(error)
            log.error("%s failed: %s", case.name, outcome.failed[case.name])
            log.debug("traceback of %s", case.name, exc_info=True)
            continue
        facts = people.setdefault(case.subject, _facts(case))
        facts["generator"] = "+".join(sorted({*facts["generator"].split("+"), record["generator"]} - {""}))
    describe_folder(folder, datasets[0], list(people.values()))
    return outcome


class _Volumes:
    """The healthy cases on their own voxels, the last few kept in memory."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self.of = lru_cache(KEPT_VOLUMES)(self._read)

    def _read(self, name: str, contrasts: tuple[str, ...]) -> NativeVolume:
        case = next(case for case in self.cases if case.name == name)
        # On a grid that will be there: a reference that is not painted is not written.
        return native_volume(case if case.reference in contrasts else replace(case, reference=""), contrasts)


@dataclass(frozen=True)
class _Painter:
    """Paints cases into a folder, by the same generators and seed."""

    out: Path
    anomalies: Sequence[AnomalyConfig]
    seed: int
    volumes: _Volumes

    def record(self, case: Case, chosen: tuple[str, ...]) -> dict[str, Any] | None:
        """The record of a case that is complete, None of another.

        Raises:
            DataError: it cannot be read, or is of other files of that name.
        """
        path = record_path(self.out, case)
        if not path.is_file():
            return None
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            before = record["inputs"]
        except (ValueError, KeyError) as error:
            raise DataError("unreadable record of a case", where=path, mend="delete it") from error
        if before != _inputs(case, chosen):
            raise DataError("painted from another scan of that name", where=path, mend="--overwrite, or another folder")
        return record

    def paint(self, case: Case, chosen: tuple[str, ...], contrasts: tuple[str, ...]) -> dict[str, Any]:
        """Paint the ``chosen`` contrasts of a case, write them and the masks, and last the record."""
        strangers = [other.name for other in self.volumes.cases if other.subject != case.subject]
        volume = self.volumes.of(case.name, contrasts)
        painted, generator = paint_volume(
            volume,
            for_contrasts(self.anomalies, contrasts),
            seed=self.seed,
            identity=(case.dataset, case.name),
            others=[partial(self.volumes.of, name, contrasts) for name in strangers],
        )
        masks = {"lesion": painted.lesion, "brain": volume.brain}
        if painted.ignore.any():
            masks["ignore"] = painted.ignore
        for kind, mask in masks.items():
            path = mask_path(self.out, case, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, volume.on_scan(mask), volume.grid, np.uint8)
        for name in chosen:
            path = scan_path(self.out, case, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            scan = read_volume(case.images[name])
            write_volume(path, volume.scan_with(painted, scan, contrasts.index(name)), scan.grid)
        voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
        record = {
            "generator": generator,
            "volume_ml": round(float(painted.lesion.sum()) * voxel_ml, 3),
            "inputs": _inputs(case, chosen),
        }
        write_record(self.out, case, record)
        return record


def _inputs(case: Case, chosen: Sequence[str]) -> dict[str, Any]:
    """What a painting is made from: the sha256 of each scan and of the brain mask, with the labels in it that count."""
    digests: dict[str, Any] = {name: file_digest(case.images[name]) for name in chosen}
    brain = {} if case.brain is None else {"brain": [file_digest(case.brain), *case.mask_labels("brain")]}
    return digests | brain


def _facts(case: Case) -> dict[str, str]:
    """The row of a person among the participants; what is said of masks is not true of those written here."""
    masks = {f"{kind}_labels" for kind in ("brain", "lesion", "ignore")}
    kept = {name: value for name, value in case.attributes.items() if name not in masks}
    split = {"split": case.split} if case.split else {}
    painted = {"health": "lesion", "pathology": "painted", "generator": ""}
    return {"participant_id": f"sub-{case.subject}"} | kept | split | painted
