"""The BIDS folder of scans of healthy people with painted lesions: where its files are, and those about all of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybriduad import __version__
from hybriduad.core.requests import is_another
from hybriduad.core.types import Case
from hybriduad.scan.volumes import write_atomically, write_json

FORMAT = 1
"""Part of a folder's request: raised whenever the same request would paint other voxels or write other files."""
RECORD, DESCRIPTION, PARTICIPANTS = "paint.json", "dataset_description.json", "participants.tsv"
LESION_FREE_FOLDER = Path("derivatives") / "lesion-free"
COLUMNS = {
    "health": "Whether the scan has a lesion: all have a painted one",
    "pathology": "What kind of lesion: painted",
    "generator": "Which generator painted it",
    "split": "Part of the data set that the scan is for",
}
OF_THE_SCAN = "As stated of the scan that was painted into"
"""What any other column of the participants says."""
ABOUT = """# Scans of healthy people with lesions that hybriduad painted

No lesion here is real. Masks of lesion, of what is neither lesion nor healthy (ignore) and of the brain:
`derivatives/manual`. What was painted, and by which seed: `paint.json`, and the JSON file beside each lesion mask.

The data set keeps the name of the one that the scans come from: the people are the same, so what was trained on them
must not be tested on these.
"""


def scan_path(out: Path, case: Case, contrast: str) -> Path:
    """Where a scan of a case is: contrast agents are an entity of the name in BIDS."""
    agent, suffix = ("_ce-gadolinium", "T1w") if contrast == "T1wCE" else ("", contrast)
    run = f"_run-{case.run}" if case.run else ""
    return out / case.place / f"{case.name.removesuffix(run)}{agent}{run}_{suffix}.nii.gz"


def lesion_free_path(out: Path, case: Case, contrast: str) -> Path:
    """Where the same brain without its lesion is."""
    stem, _, suffix = scan_path(out, case, contrast).name.rpartition("_")
    return out / LESION_FREE_FOLDER / case.place / f"{stem}_desc-lesionfree_{suffix}"


def mask_path(out: Path, case: Case, kind: str) -> Path:
    """Where a mask of a case is: its lesion, ignore or brain."""
    return out / "derivatives" / "manual" / case.place / f"{case.name}_label-{kind}_mask.nii.gz"


def begin_folder(out: Path, request: Mapping[str, Any], overwrite: bool) -> None:
    """Make the folder, or check that the folder there is of the same request; ``overwrite`` empties one of another.

    Raises:
        ConfigError: it holds the scans of another request and ``overwrite`` is not set, or something else.
    """
    request = {"format": FORMAT, **request}
    is_another(out, RECORD, request, "painted scans", overwrite)
    if overwrite and (out / RECORD).is_file():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / ".bidsignore", f"{RECORD}\n".encode())
    write_json(out / RECORD, request)


def describe_folder(out: Path, dataset: str, people: Sequence[Mapping[str, str]], readme: str = ABOUT) -> None:
    """Write the files that make a folder a BIDS data set: ``people`` each with its ``participant_id`` and facts.

    Brains without their lesion, where there are any, have a description as the masks have.
    """
    columns = list(dict.fromkeys(name for facts in people for name in facts))
    rows = [columns, *([facts.get(name, "") for name in columns] for facts in people)]
    lines = ["\t".join(" ".join(cell.split()) or "n/a" for cell in row) for row in rows]
    write_atomically(out / PARTICIPANTS, ("\n".join(lines) + "\n").encode())
    meanings = {name: {"Description": COLUMNS.get(name, OF_THE_SCAN)} for name in columns if name != "participant_id"}
    write_json((out / PARTICIPANTS).with_suffix(".json"), meanings)
    about = {"BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "hybriduad", "Version": __version__}]}
    write_json(out / DESCRIPTION, {"Name": dataset, "DatasetType": "raw", **about})
    masks = out / "derivatives" / "manual"
    masks.mkdir(parents=True, exist_ok=True)
    write_json(masks / DESCRIPTION, {"Name": f"{dataset} masks", "DatasetType": "derivative", **about})
    if (out / LESION_FREE_FOLDER).is_dir():
        twins = {"Name": f"{dataset} without lesions", "DatasetType": "derivative", **about}
        write_json(out / LESION_FREE_FOLDER / DESCRIPTION, twins)
    write_atomically(out / "README.md", readme.encode())


def record_path(out: Path, case: Case) -> Path:
    """The sidecar of a case's lesion mask, written last: where it is, the case is complete."""
    mask = mask_path(out, case, "lesion")
    return mask.with_name(mask.name.removesuffix(".nii.gz") + ".json")


def write_record(out: Path, case: Case, facts: Mapping[str, Any]) -> None:
    """Write the record of a case whose files are there."""
    description = "1 where a lesion was painted; hybriduad, research use only"
    write_json(record_path(out, case), {"Type": "Lesion", "Manual": False, "Description": description, **facts})
