"""The predictions folder, a BIDS derivative: names of its files, its request, and who may write there."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hybriduad import __version__
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.core.requests import difference, refuse_strangers
from hybriduad.core.types import Case
from hybriduad.detector.bundle import Bundle
from hybriduad.scan.atlas import Atlas
from hybriduad.scan.digests import file_digest
from hybriduad.scan.template_space import registration_version
from hybriduad.scan.volumes import write_atomically, write_json

FORMAT = 4
"""Part of a folder's request and of every record: raised whenever a prediction would hold other numbers or files, so
that a folder never mixes predictions of two versions."""
READABLE = (1, 2, 3, FORMAT)
"""Formats that can be evaluated: the first has no asymmetry, the first two do not say how far to trust them, and those
before the last do not flag the volume of a brain."""
SUFFIXES = {
    "score": "desc-anomaly_probseg",
    "probability": "desc-segmenter_probseg",
    "map": "desc-reconstruction_probseg",
    "uncertainty": "desc-uncertainty_probseg",
    "intensity": "desc-intensity_probseg",
    "asymmetry": "desc-asymmetry_probseg",
    "mask": "label-lesion_desc-anomaly_mask",
    "brain": "desc-brain_mask",
    "reconstruction": "desc-pseudohealthy",
}
"""Part of a prediction -> the end of its file's name; a pseudo-healthy scan adds its contrast."""
CONTENT = {
    "probability": "segmenter's probability of a lesion in [0, 1]",
    "map": "anomaly map of the reconstruction alone in [0, 1]",
    "uncertainty": "standard deviation of the probability between the reconstructions, in [0, 1]",
    "intensity": "plain intensity, median-filtered, in [0, 1]: a baseline that learns nothing",
    "asymmetry": "by how much a voxel looks more abnormal than its mirror image across the mid-sagittal plane, "
    "median-filtered, in [0, 1]: a baseline that learns nothing",
    "mask": "1 where the score reaches the calibrated threshold",
    "brain": "1 where scores count",
    "reconstruction": "pseudo-healthy reconstruction in the scan's own units, equal to it outside the brain",
}
"""What the values of a part are; the score's sidecar is the record of the case."""
LESIONS = "desc-anomaly_lesions.tsv"
"""How the table of a mask's components ends."""
DEFAULT_MAPS = ("score", "mask", "brain")
MODEL, DESCRIPTION, README = "model.json", "dataset_description.json", "README.md"
ABOUT = """# Anomaly maps by hybriduad

Research use only: not a medical device, not for diagnosis or treatment. For each case in `sub-*/`, on the grid of its
scan: scores in [0, 1], 0 outside the brain, and where the model was calibrated a mask. `model.json` says which model
made them and at which thresholds; the JSON file beside each score is the record of that case. Its `confidence` says
what the threshold promises, how unusual the scan is among healthy controls (`scan_p`), and which Dice the mask may be
expected to have if the scan has a lesion (`predicted_dice`). All cases in a table: `desc-anomaly_cases.tsv`; those that
failed and why: `failures.tsv`.

`*_lesions.tsv` lists the components of the mask: how large, where, and how sure; `desc-anomaly_lesions.json` says what
its columns are, and what `p` promises. Where an atlas was named, `region` holds most of a lesion.
"""
FAILURES = "failures"
"""Folder of what failed, a file each."""
GROUP = "desc-anomaly_*.*"
"""The tables of all cases, and what the columns of all tables are."""
PAGES = "report"
"""Folder of the pages that may be written beside the predictions."""
IGNORED = (MODEL, "*.html", f"*_{LESIONS}", f"{FAILURES}*", GROUP, PAGES)
"""What is no part of BIDS."""
ABANDONED_S = 600
"""Age from which on a file under a temporary name is nobody's: none is written for so long."""


def wanted_parts(maps: Sequence[str]) -> tuple[str, ...]:
    """The parts to write for ``maps``, names of :data:`SUFFIXES` or "all", in their order; the score always.

    Raises:
        ConfigError: no map, or an unknown map.
    """
    unknown = sorted(set(maps) - {*SUFFIXES, "all"})
    if unknown or not maps:
        raise ConfigError("unknown maps", got=unknown or "none", expected=f"some of {[*SUFFIXES, 'all']}")
    # The score is always written: its sidecar is the record that the case is complete.
    return tuple(SUFFIXES) if "all" in maps else tuple(name for name in SUFFIXES if name in {*maps, "score"})


def record_of(folder: Path, case: Case) -> Path:
    """The sidecar of a case's score, written last: where it is, the case is complete."""
    return folder / case.place / f"{case.name}_{SUFFIXES['score']}.json"


def remove_case(folder: Path, case: Case) -> None:
    """Remove the files of a case, first its record."""
    record_of(folder, case).unlink(missing_ok=True)
    for suffix in (*SUFFIXES.values(), LESIONS):
        for old in (folder / case.place).glob(f"{case.name}_{suffix}*"):
            old.unlink(missing_ok=True)


def refusal(
    folder: Path,
    model: Bundle,
    maps: Sequence[str],
    rule: str | None,
    brain: str | None = None,
    atlas: Atlas | None = None,
    *,
    overwrite: bool = False,
    log_file: Path | None = None,
) -> ConfigError | None:
    """Why predictions of this request cannot be written to a folder; None where they can.

    It holds other predictions, which ``overwrite`` would replace, or something else than the log of the run
    (``log_file``) and hidden files.
    """
    path = folder / MODEL
    if not path.is_file():
        log_places = [] if log_file is None else [log_file.absolute(), *log_file.absolute().parents]

        def is_own(entry: Path) -> bool:
            """Another run may have begun the folder by now."""
            return entry.name.startswith(".") or entry.absolute() in log_places or path.is_file()

        try:
            refuse_strangers(folder, is_own)
        except ConfigError as error:
            return error
        return None
    if overwrite:
        return None
    request = _request(model, maps, rule, brain, atlas)
    try:
        stated = json.loads(path.read_text())
        asked, number = stated["request"], stated.get("format")
    except (ValueError, KeyError):
        asked, number = {}, None
    same = all(key in asked and asked[key] == value for key, value in request.items())
    same = same and all(asked.get(name) == request.get(name) for name in ("brain", "atlas"))
    if same and number == FORMAT:
        return None
    mend = "choose another folder, or --overwrite"
    if same:
        return ConfigError(
            "predictions of another version", where=folder, got=f"format {number}", expected=FORMAT, mend=mend
        )
    what = difference({key: asked.get(key) for key in ({"brain", "atlas"} & asked.keys()) | request.keys()}, request)
    return ConfigError("other predictions in the same place", where=folder, got=what, mend=mend)


def _request(
    model: Bundle, maps: Sequence[str], rule: str | None, brain: str | None, atlas: Atlas | None
) -> dict[str, Any]:
    stated: dict[str, Any] = {} if brain is None else {"brain": brain}
    stated |= {} if atlas is None else {"atlas": atlas.digest}
    stated |= registration_version(model.anatomy)
    if "reconstruction" in maps and len(model.anatomy.contrasts) > 1:  # earlier versions wrote one contrast alone
        stated["pseudo_healthy"] = "every contrast"
    return {"maps": list(maps), "rule": rule, "bundle": model.digest} | stated


def _scored(model: Bundle) -> list[str]:
    """The parts that a model's score is made of: its map, its segmenter's probability, or both."""
    mapped = model.kind == "reconstructor" or model.reconstructor is not None
    return (["map"] if mapped else []) + (["probability"] if model.kind == "detector" else [])


def begin_folder(
    folder: Path,
    model: Bundle,
    maps: Sequence[str],
    rule: str | None,
    overwrite: bool,
    brain: str | None = None,
    atlas: Atlas | None = None,
    *,
    log_file: Path | None = None,
) -> None:
    """Make the predictions folder, or check that the folder there is of the same request and version.

    Runs at the same time may begin a folder together: :data:`MODEL` is that of the first.
    ``brain``: how brains are found, where that was asked for and not left to the model; ``atlas`` names regions;
    ``log_file`` may lie in the folder already.

    Raises:
        ConfigError: it holds other predictions and ``overwrite`` is not set, or something else.
    """
    path = folder / MODEL
    if error := refusal(folder, model, maps, rule, brain, atlas, overwrite=overwrite, log_file=log_file):
        raise error
    if other := path.is_file():
        if refusal(folder, model, maps, rule, brain, atlas) is None:
            return _describe(folder)
        # All files go, so that a folder never mixes two models, not even when this run is stopped.
        for page in (folder / PAGES).glob("*.html"):
            page.unlink()
        for suffix in (*SUFFIXES.values(), LESIONS):
            for old in folder.glob(f"sub-*/**/anat/*_{suffix}*"):
                old.unlink(missing_ok=True)
        for old in (*folder.glob(f"{FAILURES}/sub-*.json"), *folder.glob("failures.tsv"), *folder.glob(GROUP)):
            old.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    stage1 = model if model.kind == "reconstructor" else model.reconstructor
    content = {
        "format": FORMAT,
        "bundle": model.digest,
        "kind": model.kind,
        "contrasts": list(model.anatomy.contrasts),
        "used": model.used,
        "parts": _scored(model),
        "reconstruction": None if stage1 is None else stage1.run.model.method,
        "fusion": model.run.fusion.model_dump(mode="json") if model.kind == "detector" else None,
        "thresholds": model.record["thresholds"],
        "request": _request(model, maps, rule, brain, atlas),
    }
    if other:
        write_json(path, content)
    elif not _write_first(path, json.dumps(content, indent=1, sort_keys=True).encode()):  # another run was faster
        return begin_folder(folder, model, maps, rule, overwrite=False, brain=brain, atlas=atlas, log_file=log_file)
    return _describe(folder)


def _describe(folder: Path) -> None:
    """The files beside :data:`MODEL`, which is written first; what somebody added to them stays."""
    description = {
        "Name": "hybriduad anomaly maps (research use only)",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "hybriduad", "Version": __version__}],
    }
    if not (folder / DESCRIPTION).is_file():
        write_json(folder / DESCRIPTION, description)
    if not (folder / README).is_file():
        write_atomically(folder / README, ABOUT.encode())
    ignored = folder / ".bidsignore"
    there = ignored.read_text().splitlines() if ignored.is_file() else []
    if more := [name for name in IGNORED if name not in there]:
        write_atomically(ignored, "".join(f"{name}\n" for name in [*there, *more]).encode())


def _write_first(path: Path, content: bytes) -> bool:
    """Write a file that is not there yet, complete or not at all; whether this was the first of several runs."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_bytes(content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def remove_abandoned(folder: Path) -> None:
    """Remove what killed runs left half written: files under temporary names that nobody has written to for a while."""
    for path in [*folder.glob(".*"), *folder.glob(f"{FAILURES}/.*"), *folder.glob("sub-*/**/anat/.*")]:
        with suppress(OSError):
            if _temporary(path) and time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()


def _temporary(path: Path) -> bool:
    """Whether a file is one that :func:`hybriduad.scan.volumes.write_atomically` makes aside."""
    return re.fullmatch(r"\..+\.\d+\.\d+", path.name) is not None


def check_same_scan(record: Path, case: Case, contrasts: tuple[str, ...]) -> None:
    """A finished case of that name counts as done only if this version predicted it from the same files.

    Raises:
        DataError: it is of other files or another version, or its record cannot be read.
    """
    try:
        stated = json.loads(record.read_text())
        before, number = stated["inputs"], stated.get("format")
    except (ValueError, KeyError) as error:
        raise DataError("unreadable record of a case", where=record, mend="delete it") from error
    if number != FORMAT:
        raise DataError(
            "prediction of another version", where=record, got=f"format {number}", expected=FORMAT, mend="--overwrite"
        )
    if before != inputs_of(case, contrasts):
        raise DataError("prediction of another scan of that name", where=record, mend="--overwrite, or another folder")


def inputs_of(case: Case, contrasts: tuple[str, ...]) -> dict[str, Any]:
    """The inputs of a prediction: the sha256 of each image and of the brain mask, with the labels in it that
    count, and which contrast is the reference."""
    reference = case.reference_contrast(contrasts)
    used = {name: path for name, path in case.images.items() if name in {*contrasts, reference}}
    inputs: dict[str, Any] = {name: {"sha256": file_digest(path)} for name, path in used.items()}
    inputs[reference]["reference"] = True
    if case.brain:
        inputs["brain"] = {"sha256": file_digest(case.brain)}
        if labels := case.mask_labels("brain"):
            inputs["brain"]["labels"] = list(labels)
    return inputs
