"""A model folder: self-contained, movable, immutable, checked on every load. No pickle anywhere.

``bundle.json`` says what the folder is, with a sha256 of itself, of every file beside it (``config.yaml``, the resolved
run, ``request.json``, and what was learnt: ``weights.safetensors``, ``statistics.safetensors``) and of ``bundle.json``
in ``reconstructor/``, a detector's copy of its parent. What shows the training, ``pictures/`` and ``log/``, has none.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from hybriduad.config import files as configs
from hybriduad.config.runs import Anatomy, DetectorRun, Precision, ReconstructorRun, Residual
from hybriduad.config.strict import checked
from hybriduad.core.errors import BundleError
from hybriduad.detector.thresholds import Thresholds

FORMAT = 1
RECORD, CONFIG, WEIGHTS, STATISTICS, RECONSTRUCTOR = (
    "bundle.json",
    "config.yaml",
    "weights.safetensors",
    "statistics.safetensors",
    "reconstructor",
)
INTENDED_USE = "Research use only. Not a medical device; not for diagnosis or treatment."


@dataclass(frozen=True)
class Bundle:
    """What a model folder says of itself, checked.

    ``record`` is ``bundle.json``; ``run`` the resolved config; ``reconstructor`` the nested bundle of a detector.
    """

    folder: Path
    record: Mapping[str, Any]
    run: Any
    reconstructor: Bundle | None = None

    @property
    def kind(self) -> str:
        """``reconstructor`` or ``detector``."""
        return str(self.record["kind"])

    @property
    def digest(self) -> str:
        """The sha256 that names this bundle, its weights, config and thresholds included."""
        return str(self.record["digest"])

    @property
    def anatomy(self) -> Anatomy:
        """The contrasts and the model grid."""
        return checked(Anatomy, self.record["anatomy"], str(self.folder / RECORD))

    @property
    def residual(self) -> Residual | None:
        """The residual of its maps, from its config, else its reconstructor's; None without a reconstructor.

        A detector's config holds it resolved; those of older detectors may leave it to the reconstructor.
        """
        stated: Residual | None = self.run.residual
        return stated or (self.reconstructor.residual if self.reconstructor is not None else None)

    @property
    def generation(self) -> int:
        """How many trainings of its kind led to it: 1, or 1 more than those of the detector it was started from.

        Older records lack it and count as 2 where labels were learnt from (few-label fine-tuning), else as 1.
        """
        return int(self.record.get("generation", 2 if self.record["training"].get("labelled_cases") else 1))

    @property
    def needed(self) -> tuple[str, ...]:
        """The contrasts that a case must have: of several those that no slice of a training of this bundle lacked,
        neither by contrast dropout (``augmentation.absent``) nor because a case has no such scan.

        Records from before this was noted need none: a case that lacks a contrast is then only warned of.
        """
        inner = self.reconstructor.needed if self.reconstructor else ()
        met = self.record["training"].get("contrasts")
        names = self.anatomy.contrasts
        if met is None or met["dropout"] > 0 or len(names) == 1:
            return inner
        return tuple(name for name in names if name in inner or not met["lacking_cases"].get(name))

    @property
    def used(self) -> dict[str, str]:
        """Identity digest -> role ("fit" or "calibrate") of every scan and subject behind it, parents included."""
        identities = dict(self.record["identities"])
        return (self.reconstructor.used if self.reconstructor else {}) | identities

    @property
    def thresholds(self) -> Thresholds:
        """The calibrated thresholds, empty before calibration."""
        return Thresholds.from_json(self.record["thresholds"])


@dataclass(frozen=True)
class Description:
    """What :func:`save` writes into ``bundle.json`` beside the config: the training in numbers, without names.

    ``training`` counts cases and slices and gives attribute ranges; ``identities`` maps digests to their role;
    ``precision`` is resolved ("auto" never gets here); ``thresholds`` is the JSON form of
    :class:`hybriduad.detector.thresholds.Thresholds`; ``generation`` as :attr:`Bundle.generation`; ``seed`` that of the
    noise, by default the run's.
    """

    anatomy: Anatomy
    direction: str
    precision: Precision
    training: Mapping[str, Any]
    identities: Mapping[str, str]
    data_licence: str = "not stated"
    thresholds: Mapping[str, Any] = field(default_factory=lambda: {"default": "", "rules": {}})
    generation: int = 1
    seed: int | None = None


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = ("hybriduad", "torch", "diffusers", "segmentation-models-pytorch", "lightning", "torchio", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def save(
    folder: Path,
    run: ReconstructorRun | DetectorRun,
    weights: Mapping[str, Tensor],
    statistics: Mapping[str, Tensor],
    description: Description,
    reconstructor: Bundle | None = None,
) -> Bundle:
    """Write a bundle into ``folder``, which must not hold a bundle yet; ``reconstructor`` is copied into it.

    Raises:
        BundleError: the folder already holds a bundle.
    """
    if (folder / RECORD).exists():
        raise BundleError("bundle already there", where=folder, mend="choose another folder or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(configs.dump(run))
    _write_tensors(folder / WEIGHTS, weights)
    _write_tensors(folder / STATISTICS, statistics)
    if reconstructor is not None:
        # Without the pictures and the log of its training, which show scans.
        ignored = shutil.ignore_patterns("pictures", "log")
        shutil.copytree(reconstructor.folder, folder / RECONSTRUCTOR, ignore=ignored)
    record = {
        "format": FORMAT,
        "kind": run.kind,
        "intended_use": INTENDED_USE,
        "licence": {"code": "Apache-2.0", "training_data": description.data_licence},
        "anatomy": description.anatomy.model_dump(mode="json"),
        "direction": description.direction,
        "precision": description.precision,
        "seed": run.seed if description.seed is None else description.seed,
        "generation": description.generation,
        "training": dict(description.training),
        "identities": dict(description.identities),
        "thresholds": dict(description.thresholds),
        "provenance": {"versions": versions()},
    }
    write_record(folder, record)
    return verify(folder)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``bundle.json`` with the checksums of the folder's other files and its own digest, atomically."""
    body = {key: value for key, value in record.items() if key not in ("checksums", "digest")}
    body["checksums"] = {name: _sha256(folder / name) for name in _files(folder)}
    body["digest"] = _digest(body)
    partial = folder / f".{RECORD}.partial"
    partial.write_text(json.dumps(body, indent=1, sort_keys=True))
    os.replace(partial, folder / RECORD)


def verify(folder: str | Path) -> Bundle:
    """Read a bundle and check every checksum, nested bundles included.

    Raises:
        BundleError: no bundle there, a newer format, a file missing, truncated, changed or added.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        state = "an unfinished training" if folder.with_name(folder.name + ".partial").is_dir() else "no bundle.json"
        raise BundleError(
            "no bundle", where=folder, got=state, expected="a folder made by fit-reconstructor or fit-detector"
        )
    try:
        record = json.loads((folder / RECORD).read_text())
        stated, checksums, number = record["digest"], record["checksums"], record["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            "unreadable bundle.json", where=folder, got=repr(error), mend="fit or copy it again"
        ) from error
    if number != FORMAT:
        raise BundleError("another bundle format", where=folder, got=number, expected=FORMAT, mend="update hybriduad")
    if _digest({key: value for key, value in record.items() if key != "digest"}) != stated:
        raise BundleError("bundle.json was changed after it was written", where=folder, mend="copy the bundle again")
    present = _files(folder)
    for name in sorted(set(checksums) | set(present)):
        if name not in present:
            raise BundleError("file missing from bundle", where=folder, got=name, mend="copy the bundle again")
        if name not in checksums:
            raise BundleError("file that does not belong to bundle", where=folder, got=name, mend="remove it")
        if _sha256(folder / name) != checksums[name]:
            raise BundleError("damaged or changed file in bundle", where=folder, got=name, mend="copy the bundle again")
    run = configs.load_resolved(folder / CONFIG, record["kind"])
    nested = verify(folder / RECONSTRUCTOR) if (folder / RECONSTRUCTOR).is_dir() else None
    return Bundle(folder, record, run, nested)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save  # not save_file, whose files only their owner may read

    path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def _files(folder: Path) -> list[str]:
    """The files with a checksum: the bundle's, and the record of a nested bundle, which has those of the rest."""
    records = (RECORD, f".{RECORD}.partial")
    names = [entry.name for entry in folder.iterdir() if entry.is_file() and entry.name not in records]
    return sorted(names + ([f"{RECONSTRUCTOR}/{RECORD}"] if (folder / RECONSTRUCTOR).is_dir() else []))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError("file missing from bundle", where=path, mend="copy the bundle again") from error


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
