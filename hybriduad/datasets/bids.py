"""BIDS: any raw data set of the Brain Imaging Data Structure (https://bids.neuroimaging.io), masks in its derivatives.

Layout: ``sub-X[/ses-Y]/anat/sub-X[_ses-Y][_ce-L][_run-N]_{FLAIR,T1w,T2w,PDw,T2starw}.nii[.gz]`` and
``derivatives/<any>/sub-X[/ses-Y]/anat/sub-X[_...]_label-{lesion,brain,ignore}_mask.nii[.gz]``, or ``desc-`` for
``label-``; the same brain without its lesion as ``..._desc-lesionfree_{FLAIR,...}.nii[.gz]`` there; columns of
``participants.tsv`` become attributes, but ``health`` and ``split``, fields of the case. A row that cannot be used is a
fault of the truth of its cases.
Where, licence: as the data set at hand says; OpenNeuro holds many.
Traps: ``ce-gad_T1w`` is another contrast (T1wCE) than ``T1w``; a scan without run belongs to every run of its
session; of two files that fit a case equally well none is taken, and its fault says so; masks in another space
(``space-MNI...``) are left out; predictions (``desc-anomaly``) are not truth and are left out; ``n/a`` is no value;
content of DataLad sets must be fetched first.

File names are read here and not by ancpbids, which turns run ``01`` into the number 1 (the name cannot be
rebuilt), lists ``sourcedata`` among the raw scans, and ends in an AttributeError on a damaged JSON file.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from hybriduad.core.errors import DataError
from hybriduad.core.types import Case, Health, Split
from hybriduad.datasets._layout import (
    CONTRASTS,
    LESION_FREE,
    MASKS,
    closed,
    contrast_of,
    dataset_name,
    entities,
    files,
    listing,
)
from hybriduad.datasets._participants import Participants, read_participants

log = logging.getLogger(__name__)
LAYOUT = "sub-X[/ses-Y]/anat/sub-X[_ses-Y]_{FLAIR,T1w,T2w,PDw}.nii.gz"


@dataclass(frozen=True)
class _File:
    """A file: its kind (contrast, mask or column of a scan without lesion), who it is of, how specific its name is."""

    path: Path
    kind: str
    subject: str
    session: str
    run: str
    rank: tuple[int, int]


def cases(root: str | Path, wanted: Callable[[dict[str, str], str], bool] | None = None) -> Iterator[Case]:
    """One case a subject, session and run; ``health`` is "lesion" where there is a lesion mask and nothing is stated.

    ``wanted`` leaves scans out by the labels and the suffix of their file names. Where two files fit one contrast or
    mask of a case equally well, a folder of it cannot be read, or what ``participants.tsv`` says of it cannot be used,
    the case has a fault.

    Raises:
        DataError: no scan of this layout.
    """
    root = Path(root)
    participants = read_participants(root)
    read = sorted(_read(root, wanted, participants), key=lambda case: (case.subject, case.session, case.run))
    if faulty := {case.name: next(iter(case.faults.values())) for case in read if case.faults}:
        name, fault = next(iter(faulty.items()))
        log.warning("%d of %d cases have files that cannot be used, as %s: %s", len(faulty), len(read), name, fault)
    if participants.warning:
        log.warning("%s", participants.warning)
    for case in read:
        yield replace(case, faults={**participants.faults_of(case.subject), **case.faults})


def _read(
    root: Path, wanted: Callable[[dict[str, str], str], bool] | None, participants: Participants
) -> Iterator[Case]:
    image_paths = [path for path in files(root, *_anat("")) if wanted is None or _wanted(path, wanted)]
    scans = _grouped(file for path in image_paths if (file := _image(path)))
    unread = _unread(root)
    if not scans and not unread:
        raise DataError("no scan in BIDS layout", where=root, expected=LAYOUT)
    if strangers := [path.name for path in image_paths if _image(path) is None]:
        known = ", ".join(CONTRASTS)
        log.warning("%d images are none of %s and left out: %s", len(strangers), known, listing(strangers))
    derived, name = _grouped(_derived(root)), dataset_name(root)
    for (subject, session), fault in unread.items():
        yield Case(name, subject, {}, session, faults={"": fault})
    sessions = Counter(subject for subject, _ in scans)
    for (subject, session), images in sorted(scans.items()):
        # A mask whose name has no session or run is of the only session or run; where there are several, of none.
        of_session = derived.get((subject, session), [])
        if session and sessions[subject] == 1:
            of_session = of_session + derived.get((subject, ""), [])
        runs = sorted({file.run for file in images if file.run}) or [""]
        for run in runs:
            of_run = [file for file in of_session if file.run == run or len(runs) == 1]
            faults: dict[str, str] = {}
            chosen = {contrast: path for contrast in CONTRASTS if (path := _best(images, contrast, run, faults))}
            brain, lesion, ignore = (_best(of_run, kind, run, faults) for kind in MASKS)
            twins = {c: path for c in chosen if (path := _best(of_run, LESION_FREE[c], run, faults))}
            attributes = dict(participants.people.get(subject, {}))
            health = attributes.pop("health", "lesion" if lesion or "lesion" in faults else "unknown")
            split = attributes.pop("split", "")
            yield Case(
                name,
                subject,
                chosen,
                session,
                run,
                brain=brain,
                lesion=lesion,
                ignore=ignore,
                health=cast(Health, health),
                split=cast(Split, split),
                attributes=attributes,
                lesion_free=twins,
                faults=faults,
            )


def _unread(root: Path) -> dict[tuple[str, str], str]:
    """The fault of each subject and session with a folder that cannot be read; of derivatives the log alone says so."""
    unread = {}
    for folder in _folders(root, ""):
        if reason := closed(folder):
            parts = folder.relative_to(root).parts
            session = parts[1].removeprefix("ses-") if len(parts) > 1 and parts[1] != "anat" else ""
            error = DataError("cannot read folder", where=folder, got=reason, mend="give this user access to it")
            unread[parts[0].removeprefix("sub-"), session] = str(error).removesuffix(".")
    if lost := [folder for folder in _folders(root, "derivatives/*/") if closed(folder)]:
        log.warning("%d folders cannot be read, masks in them are not used: %s", len(lost), listing(lost))
    return unread


def _folders(root: Path, prefix: str) -> list[Path]:
    patterns = [prefix + name for name in ("sub-*", "sub-*/anat", "sub-*/ses-*", "sub-*/ses-*/anat")]
    patterns += ["derivatives", "derivatives/*"] if prefix else []
    return sorted(path for pattern in patterns for path in root.glob(pattern) if os.path.isdir(path))


def _wanted(path: Path, wanted: Callable[[dict[str, str], str], bool]) -> bool:
    parsed = entities(path.name)
    return parsed is None or wanted(*parsed)


def _grouped(candidates: Iterable[_File]) -> dict[tuple[str, str], list[_File]]:
    """By subject and session."""
    groups: dict[tuple[str, str], list[_File]] = defaultdict(list)
    for file in candidates:
        groups[file.subject, file.session].append(file)
    return dict(groups)


def _anat(prefix: str) -> tuple[str, str]:
    return f"{prefix}sub-*/anat/*.nii*", f"{prefix}sub-*/ses-*/anat/*.nii*"


def _image(path: Path) -> _File | None:
    parsed = entities(path.name)
    contrast = contrast_of(*parsed) if parsed else ""
    return _file(path, contrast, parsed[0], 0) if parsed and contrast else None


def _file(path: Path, kind: str, labels: dict[str, str], order: int) -> _File:
    return _File(path, kind, labels["sub"], labels.get("ses", ""), labels.get("run", ""), (order, len(labels)))


def _derived(root: Path) -> list[_File]:
    """The masks, and the scans without lesion."""
    paths = files(root, *_anat("derivatives/*/"))
    depth = len(root.parts) + 1
    predicted = {path.parts[depth] for path in paths if "_desc-anomaly_" in path.name}
    derived = []
    for path in paths:
        parsed = entities(path.name)
        if parsed is None or path.parts[depth] in predicted:
            continue
        labels, suffix = parsed
        kind = labels.get("label") or labels.get("desc", "") if suffix == "mask" else _lesion_free(labels, suffix)
        in_place = labels.get("space", "orig") in ("orig", "individual", *CONTRASTS)
        if kind in (*MASKS, *LESION_FREE.values()) and in_place:
            derived.append(_file(path, kind, labels, int(path.parts[depth] != "manual")))
    return derived


def _lesion_free(labels: dict[str, str], suffix: str) -> str:
    """The column of a scan without lesion; "" for any other file."""
    others = {key: value for key, value in labels.items() if key != "desc"}
    return LESION_FREE.get(contrast_of(others, suffix), "") if labels.get("desc") == "lesionfree" else ""


def _best(candidates: Sequence[_File], kind: str, run: str, faults: dict[str, str]) -> Path | None:
    """The file of a kind: with this run before without a run, then ``manual`` masks, then the fewest labels; none, and
    one more of the ``faults``, where several are equal in all that."""
    fitting = [file for file in candidates if file.kind == kind and file.run in ("", run)]
    ranks = [(file.run != run, *file.rank) for file in fitting]
    best = [file.path for file, rank in zip(fitting, ranks, strict=True) if rank == min(ranks)]
    if len(best) > 1:
        mend = "choose one of them by hybriduad-bids --bids-filter-file, or in a manifest CSV"
        error = DataError(f"several files for {kind} of one case", got=listing(best), mend=mend)
        faults[kind] = str(error).removesuffix(".")
        return None
    return best[0] if best else None
