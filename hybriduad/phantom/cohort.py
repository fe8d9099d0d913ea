"""A cohort of phantoms as a raw BIDS data set, and a manifest beside it.

Masks lie in ``derivatives/manual``, in ``derivatives/lesion-free`` every sick brain without its lesion, and in
``derivatives/maps``, where they are wanted, T1, T2 and proton density of every brain.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hybriduad.cohort.manifest import write_manifest
from hybriduad.core.errors import ConfigError
from hybriduad.core.processes import usable_cores
from hybriduad.core.types import Case
from hybriduad.phantom.labelmaps import labelmap_of, labelmaps_in
from hybriduad.phantom.lattice import Grid
from hybriduad.phantom.pathology import MIXED, PATHOLOGIES, Pathology
from hybriduad.phantom.signal import CONTRASTS, protocols
from hybriduad.phantom.subject import describe, make_subject
from hybriduad.phantom.workers import work_through
from hybriduad.scan.digests import file_digest
from hybriduad.scan.volumes import VolumeGrid, write_atomically, write_volume

FORMAT = 2
"""Of what the files say; another format needs ``overwrite``."""
CONFIG = "phantom.json"
"""In the cohort's folder: what its subjects depend on. Only a folder that holds it may be emptied by ``overwrite``."""
WORKER_POINTS = 60_000_000
"""Fewest points a worker with which starting it pays: 16 subjects of 2 x 2 x 5 mm."""
MAPS: dict[str, dict[str, str]] = {
    "T1map": {"Units": "s"},
    "T2map": {"Units": "s"},
    "PDmap": {"Units": "arbitrary"},
}
"""BIDS suffix of each map -> what its sidecar states."""
STAGE = "Stage"
"""In the sidecar of a lesion mask: how old the lesion is."""
TWIN = "the same brain, position, coil and noise without the lesion and its mass effect"
README = """Brains that hybriduad made itself; no person was scanned.

Masks of lesion and brain: derivatives/manual. The same brain, coil and noise without the lesion and its mass effect:
derivatives/lesion-free. Mean T1 and T2 in seconds and proton density of each voxel, where asked for: derivatives/maps.
All cases: manifest.csv. What the subjects depend on: phantom.json.

Anatomy: the ICBM 2009a non-linear symmetric template (Fonov et al. 2009), warped at random for every subject.
Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
University make no representations about the suitability of this software for any purpose. It is provided "as is"
without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.
"""


def write_cohort(
    out: str | Path,
    *,
    subjects: int,
    seed: int,
    contrasts: tuple[str, ...] = ("T1w", "FLAIR"),
    pathology: Pathology | Literal["mixed"] | None = None,
    share_healthy: float = 0.0,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 4.0),
    slice_thickness_mm: float | None = None,
    labelmaps: str | Path | None = None,
    maps: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``subjects`` phantoms under ``out`` as a raw BIDS data set and return the path of its manifest.

    Subject i is a pure function of the other arguments, however many there are, so a larger number adds to a cohort.
    ``pathology`` None makes all of them healthy; "mixed" takes glioma, stroke and ms in turn. Of any first n subjects
    ``share_healthy`` x n, rounded down, are healthy: they have no lesion mask, and health "healthy".
    The name of the data set holds the seed, because the same number under another seed is another person.
    ``labelmaps``, a folder of ``*dseg.nii.gz``, gives the anatomy of its people instead of the template's, bent; the
    attribute ``labelmap`` says whose: a split has all phantoms of a person on one side.
    ``stage`` is an attribute of lesions that look another way when they are old: of a stroke, acute or chronic.
    ``maps`` also writes the mean T1, T2 and proton density of each voxel, which are no scans of a case.

    Continuing is the default: what is there already is kept. ``progress(done, subjects)`` is called after each subject.
    ``workers`` processes make subjects, by default a worker a usable core where there is enough to do; files do not
    depend on how many. They import the main module, so that a script calls this under ``if __name__ == "__main__"``.

    Raises:
        ConfigError: a bad argument; a worker could not start or was killed; ``out`` holds something else, another
            config's cohort or a larger cohort (then ``overwrite`` makes it anew; only a folder that this function has
            made is ever emptied).
        DataError: a folder without label maps, or a damaged label map.
    """
    if subjects < 1:
        raise ConfigError("empty phantom cohort", got=f"{subjects} subjects", expected="at least 1")
    if not 0 <= share_healthy <= 1:
        raise ConfigError("bad share of healthy phantoms", got=share_healthy, expected="a number in [0, 1]")
    if pathology not in (None, "mixed", *PATHOLOGIES):
        raise ConfigError(
            "unknown pathology", got=repr(pathology), expected=f"one of {['mixed', *PATHOLOGIES]} or none"
        )
    if not contrasts or len(set(contrasts)) != len(contrasts):
        raise ConfigError("no or repeated contrasts", got=list(contrasts), expected=f"some of {list(CONTRASTS)}")
    if workers is not None and workers < 1:
        raise ConfigError("no worker to make phantoms", got=workers, expected="at least 1")
    protocols(seed, "", contrasts)  # an unknown contrast is refused before anything is written
    grid = Grid.make(spacing_mm, slice_thickness_mm)

    heads = [] if labelmaps is None else labelmaps_in(labelmaps)
    out = Path(out)
    config = {
        "format": FORMAT,
        "seed": seed,
        "contrasts": list(contrasts),
        "pathology": pathology,
        "share_healthy": share_healthy,
        "spacing_mm": list(grid.spacing_mm),
        "slice_thickness_mm": grid.extent_mm[2],
        "labelmaps": {path.name: file_digest(path) for path in heads},
    }
    _open(out, config, subjects, overwrite)
    kinds = [pathology_of(i, pathology, share_healthy) for i in range(subjects)]
    dataset = f"phantom-labelmaps-{seed}" if heads else f"phantom-{seed}"
    people = [labelmap_of(seed, i, heads) if heads else None for i in range(subjects)]
    facts = [
        describe(seed, i, kinds[i]) | ({"labelmap": head.name.partition(".")[0]} if (head := people[i]) else {})
        for i in range(subjects)
    ]
    cases = [_case(out, dataset, i, contrasts, kinds[i], facts[i]) for i in range(subjects)]
    order = [
        Order(seed, i, kinds[i], spacing_mm, slice_thickness_mm, people[i], case, map_files(out, case) if maps else {})
        for i, case in enumerate(cases)
    ]
    missing = [item for item in order if not _complete(item)]
    if workers is None:
        points = math.prod(grid.shape) * math.prod(grid.samples) * len(missing)
        workers = min(usable_cores(), max(1, points // WORKER_POINTS))
    waiting = {item.subject for item in missing}
    finished = work_through(_make, missing, max(1, min(workers, len(missing))))
    for i in range(subjects):
        if i in waiting:
            next(finished)
        if progress is not None:
            progress(i + 1, subjects)
    cases = [_with_stage(case) for case in cases]
    _describe(out, dataset, cases)
    manifest = out / "manifest.csv"
    write_manifest(cases, manifest)
    return manifest


@dataclass(frozen=True)
class Order:
    """A subject to be simulated, and the files of its ``case`` and, by BIDS suffix, of its ``maps``."""

    seed: int
    subject: int
    pathology: Pathology | None
    spacing_mm: tuple[float, float, float]
    slice_thickness_mm: float | None
    labelmap: Path | None
    case: Case
    maps: Mapping[str, Path]


def map_files(out: Path, case: Case) -> dict[str, Path]:
    """BIDS suffix -> the file of a map of a case."""
    anat = out / "derivatives" / "maps" / case.place
    return {suffix: anat / f"{case.name}_{suffix}.nii.gz" for suffix in MAPS}


def _make(order: Order) -> None:
    """Write the images and masks of a subject, and its images without the lesion, each with its sidecar."""
    case = order.case
    phantom = make_subject(
        order.seed,
        order.subject,
        pathology=order.pathology,
        contrasts=tuple(case.images),
        spacing_mm=order.spacing_mm,
        slice_thickness_mm=order.slice_thickness_mm,
        labelmap=order.labelmap,
    )
    grid = VolumeGrid.make(phantom.brain.shape, phantom.affine)
    for name, file in case.images.items():
        _write(file, np.round(phantom.images[name]), grid, phantom.protocols[name].sidecar(), np.int16)
    for name, file in case.lesion_free.items():
        facts = {**phantom.protocols[name].sidecar(), "SkullStripped": True, "Description": TWIN}
        _write(file, np.round(phantom.healthy_images[name]), grid, facts, np.int16)
    seconds = {"T1map": phantom.t1_ms / 1000, "T2map": phantom.t2_ms / 1000, "PDmap": phantom.pd}
    for suffix, file in order.maps.items():
        _write(file, seconds[suffix], grid, {"SkullStripped": True, **MAPS[suffix]}, np.float32)
    for role, path, mask in (("Brain", case.brain, phantom.brain), ("Lesion", case.lesion, phantom.lesion)):
        if path is not None:
            stage = {STAGE: phantom.stage} if role == "Lesion" and phantom.stage else {}
            _write(path, mask, grid, {"Type": role, "Manual": False, **stage}, np.uint8)


def _complete(order: Order) -> bool:
    case = order.case
    masks = [mask for mask in (case.brain, case.lesion) if mask is not None]
    files = [*case.images.values(), *case.lesion_free.values(), *masks, *order.maps.values()]
    return all(file.is_file() and _sidecar(file).is_file() for file in files)


def _with_stage(case: Case) -> Case:
    """The case with the stage of its lesion among its attributes, where its mask's sidecar states one."""
    if case.lesion is None:
        return case
    stage = json.loads(_sidecar(case.lesion).read_text(encoding="utf-8")).get(STAGE, "")
    return replace(case, attributes={**case.attributes, "stage": stage}) if stage else case


def pathology_of(
    subject: int, pathology: Pathology | Literal["mixed"] | None, share_healthy: float = 0.0
) -> Pathology | None:
    """What subject ``subject`` has: healthy subjects are spread evenly, "mixed" goes round three pathologies."""
    before, after = (math.floor(n * share_healthy + 1e-9) for n in (subject, subject + 1))
    if pathology is None or after > before:
        return None
    return MIXED[(subject - before) % len(MIXED)] if pathology == "mixed" else pathology


def _open(out: Path, config: dict[str, Any], subjects: int, overwrite: bool) -> None:
    """Make ``out`` ready for this config, or say why it cannot be."""
    record = out / CONFIG
    if out.exists() and not out.is_dir():
        raise ConfigError("phantom cohort needs a folder", got=out, expected="a new or empty folder")
    if out.is_dir() and any(out.iterdir()) and not record.is_file():
        raise ConfigError("folder holds something other than phantoms", got=out, expected="a new or empty folder")
    if record.is_file() and overwrite:
        shutil.rmtree(out)
    if record.is_file():
        try:
            stated = json.loads(record.read_text(encoding="utf-8"))
            written = int(stated.pop("subjects"))
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigError("damaged record", where=record, got=error, mend="use --overwrite") from error
        if changed := [key for key in config if stated.get(key) != config[key]]:
            got = ", ".join(f"{key} {stated.get(key)}" for key in changed)
            expected = ", ".join(f"{key} {config[key]}" for key in changed)
            mend = "choose another folder, or --overwrite it"
            raise ConfigError("phantoms of another config", where=out, got=got, expected=expected, mend=mend)
        if written > subjects:
            mend = "ask for as many, choose another folder, or --overwrite it"
            raise ConfigError(
                "larger phantom cohort", where=out, got=written, expected=f"{subjects} subjects", mend=mend
            )
    out.mkdir(parents=True, exist_ok=True)
    _json(record, {"subjects": subjects, **config})


def _case(
    out: Path, dataset: str, subject: int, contrasts: tuple[str, ...], kind: Pathology | None, facts: dict[str, str]
) -> Case:
    label = f"{subject + 1:04d}"
    stem = Path(f"sub-{label}") / "anat" / f"sub-{label}"
    masks, twins = out / "derivatives" / "manual", out / "derivatives" / "lesion-free"
    return Case(
        dataset,
        label,
        {name: out / f"{stem}_{name}.nii.gz" for name in contrasts},
        brain=masks / f"{stem}_label-brain_mask.nii.gz",
        lesion=masks / f"{stem}_label-lesion_mask.nii.gz" if kind else None,
        health="lesion" if kind else "healthy",
        attributes=facts,
        lesion_free={name: twins / f"{stem}_desc-lesionfree_{name}.nii.gz" for name in contrasts} if kind else {},
    )


def _sidecar(file: Path) -> Path:
    return file.with_name(file.name.removesuffix(".nii.gz") + ".json")


def _write(file: Path, data: np.ndarray, grid: VolumeGrid, facts: dict[str, Any], dtype: type[np.generic]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_volume(file, data, grid, dtype)
    _json(_sidecar(file), facts)


def _describe(out: Path, dataset: str, cases: list[Case]) -> None:
    """The files that make a folder a BIDS data set."""
    generated = [{"Name": "hybriduad phantom"}]
    common = {
        "BIDSVersion": "1.10.0",
        "License": "that of the ICBM 2009a template, see README, and of the label maps where there are any",
        "GeneratedBy": generated,
    }
    _json(out / "dataset_description.json", {"Name": dataset, "DatasetType": "raw", **common})
    masks = {"Name": f"{dataset} masks", "DatasetType": "derivative", **common}
    _json(out / "derivatives" / "manual" / "dataset_description.json", masks)
    if any(case.lesion_free for case in cases):
        twins = {"Name": f"{dataset} without lesions", "DatasetType": "derivative", **common}
        _json(out / "derivatives" / "lesion-free" / "dataset_description.json", twins)
    if (out / "derivatives" / "maps").is_dir():
        maps = {"Name": f"{dataset} maps", "DatasetType": "derivative", **common}
        _json(out / "derivatives" / "maps" / "dataset_description.json", maps)
    _text(out / "README", README)
    _text(out / ".bidsignore", f"{CONFIG}\nmanifest.csv\n")
    attributes = ["site", "age", "sex", "health", "pathology"]
    attributes += [name for name in ("labelmap", "stage") if any(name in case.attributes for case in cases)]
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow(["participant_id", *attributes])
    for case in cases:
        facts = {**case.attributes, "health": case.health}
        writer.writerow([f"sub-{case.subject}", *(facts.get(name, "n/a") for name in attributes)])
    _text(out / "participants.tsv", table.getvalue())
    levels = {
        "site": {"Description": "Site whose protocols the phantom was scanned with"},
        "age": {"Description": "Age at the scan", "Units": "year"},
        "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
        "health": {"Description": "Whether the brain has a lesion", "Levels": {"healthy": "none", "lesion": "some"}},
        "pathology": {"Description": "What kind of lesion"},
        "labelmap": {"Description": "Label map that the anatomy comes from"},
        "stage": {"Description": "How old the lesion is, of strokes and haemorrhages"},
    }
    _json(out / "participants.json", {name: levels[name] for name in attributes})


def _json(path: Path, content: dict[str, Any]) -> None:
    _text(path, json.dumps(content, indent=2) + "\n")


def _text(path: Path, content: str) -> None:
    write_atomically(path, content.encode())
