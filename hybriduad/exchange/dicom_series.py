"""The DICOM series below a folder, without what names a patient.

Names, dates of birth and numbers of patients are read to tell people apart and are never kept: a series knows the
running number of its patient and study, in the order of the files' paths, and a description in which none of them
stands.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybriduad.core.errors import DataError
from hybriduad.datasets._layout import listing
from hybriduad.exchange.dicom_extra import dicom_module

log = logging.getLogger(__name__)
WITHHELD = "(withheld)"
"""In place of a description that repeats what names the patient."""
SECRETS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientBirthName",
    "IssuerOfPatientID",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
SHORTEST_SECRET = 3
"""Shorter parts of a name are found by chance in the description of a sequence."""
READ = (
    *SECRETS,
    "Modality",
    "ImageType",
    "SeriesDescription",
    "ProtocolName",
    "SeriesNumber",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "SOPClassUID",
    "NumberOfFrames",
    "Rows",
)
NO_AGENT = ("", "no", "none", "without", "n", "0", "ohne", "sans")
"""What scanners write into the field of the contrast agent where there was none."""


@dataclass(frozen=True)
class DicomSeries:
    """One series: ``patient`` and ``study`` of the patient count from 1; ``label`` is the series number, as in
    "601" or "601.2" where a study has it twice; ``description`` and ``protocol`` without what names the patient;
    ``image_type`` as DICOM states it; ``agent``: a contrast agent is stated; ``images`` how many slices it has."""

    patient: int
    study: int
    label: str
    description: str
    protocol: str
    modality: str
    image_type: tuple[str, ...]
    agent: bool
    images: int
    files: tuple[Path, ...]


def find_series(folder: str | Path) -> list[DicomSeries]:
    """Every series with images below ``folder``, by patient, study (the oldest first) and series number.

    Who has the same number is one patient, without a number who has the same name, however it is written. Where there
    is neither, each study counts as a patient. The log says so, and where one number goes with several names.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: no such folder, or no DICOM image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("no such folder", got=folder, expected="a folder of DICOM files")
    grouped: dict[tuple[str, str, str], list[tuple[Path, Any]]] = defaultdict(list)
    names: dict[str, set[str]] = defaultdict(set)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        header = _header(path)
        if header is not None:
            study = str(header.get("StudyInstanceUID", ""))
            known_as, name = str(header.get("PatientID") or "").strip(), _plain(header.get("PatientName") or "")
            person = f"number {known_as}" if known_as else f"name {name}" if name else f"study {study}"
            names[person].add(name)
            grouped[person, study, str(header.get("SeriesInstanceUID", ""))].append((path, header))
    if not grouped:
        raise DataError("no DICOM image", where=folder, expected="files of MR series, in any depth")
    _warn_of_patients(names)
    people = list(dict.fromkeys(person for person, _, _ in grouped))
    found = []
    for number, person in enumerate(people, start=1):
        first = {key[1]: files[0][1] for key, files in reversed(grouped.items()) if key[0] == person}
        when = {study: (str(h.get("StudyDate", "")), str(h.get("StudyTime", ""))) for study, h in first.items()}
        studies = sorted(reversed(list(first)), key=when.__getitem__)  # of one time in the order of their paths
        for place, study in enumerate(studies, start=1):
            series = [files for key, files in grouped.items() if key[:2] == (person, study)]
            series.sort(key=lambda files: int(files[0][1].get("SeriesNumber") or 0))
            seen: Counter[str] = Counter()
            for files in series:
                label = str(files[0][1].get("SeriesNumber") or 0)
                seen[label] += 1
                label += f".{seen[label]}" if seen[label] > 1 else ""
                found.append(_described(number, place, label, files))
    return found


def _plain(name: object) -> str:
    """A patient's name without what is written now so, now otherwise: upper case, and the signs between its parts."""
    return " ".join(re.findall(r"\w+", str(name).casefold()))


def _warn_of_patients(names: Mapping[str, Collection[str]]) -> None:
    """Say by number, not by name, where it is a guess who is one patient; ``names`` are those of each."""
    if unnamed := sum(person.startswith("study ") for person in names):
        log.warning("%d studies name no patient: each counts as a patient of its own", unnamed)
    if shared := [number for number, person in enumerate(names, start=1) if len(set(names[person]) - {""}) > 1]:
        log.warning("patients with one PatientID and several names count as one each: %s", listing(shared))


def _header(path: Path) -> Any:
    """The header of a DICOM image, None of any other file."""
    pydicom = dicom_module("pydicom")
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(READ))
    except (pydicom.errors.InvalidDicomError, OSError, ValueError, KeyError, AttributeError, NotImplementedError):
        return None
    return header if header.get("Rows") and header.get("SeriesInstanceUID") else None


def _described(patient: int, study: int, label: str, files: list[tuple[Path, Any]]) -> DicomSeries:
    header = files[0][1]
    secrets = {word for _, each in files[:1] + files[-1:] for word in _secrets(each)}

    def clean(name: str) -> str:
        text = " ".join(str(header.get(name, "")).split())
        return WITHHELD if any(secret in text.casefold() for secret in secrets) else text

    agent = str(header.get("ContrastBolusAgent") or "").strip().casefold()
    return DicomSeries(
        patient,
        study,
        label,
        clean("SeriesDescription"),
        clean("ProtocolName"),
        str(header.get("Modality", "")),
        tuple(str(value).upper() for value in header.get("ImageType") or ()),
        agent not in NO_AGENT or bool(header.get("ContrastBolusAgentSequence")),
        sum(int(each.get("NumberOfFrames") or 1) for _, each in files),
        tuple(path for path, _ in files),
    )


def _secrets(header: Any) -> set[str]:
    """The words that name the patient, in lower case."""
    text = " ".join(str(header.get(name, "")) for name in SECRETS).casefold()
    return {word for word in re.split(r"[\s^=\\,;|\[\]']+", text) if len(word) >= SHORTEST_SECRET}
