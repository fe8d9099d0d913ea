"""What a case's files hold, as digests: work is known again by the content of its files, whatever they are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from hybriduad.datasets._layout import MASKS
from hybriduad.errors import DataError
from hybriduad.types import Case


def file_digest(path: Path) -> str:
    """The sha256 (hex) of a file's bytes.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError("cannot read file", where=path, got=error.strerror) from error


def mask_files(case: Case) -> dict[str, Path]:
    """The masks that a case has: brain, lesion, ignore."""
    return {kind: path for kind in MASKS if (path := getattr(case, kind)) is not None}


def cohort_digest(cases: Sequence[Case]) -> str:
    """The sha256 (hex) of all that work on these cases depends on, in their order.

    That is who they are, their health and reference contrast, the content of their images and masks, and which labels
    of a mask count. A file that cannot be read is known as that: whoever uses it says so, and leaves its case out.
    """
    listed = []
    for case in cases:
        labels = {kind: case.attributes.get(f"{kind}_labels", "") for kind in MASKS}
        digests: dict[str, str | None] = {}
        for name, path in {**case.images, **mask_files(case)}.items():
            try:
                digests[name] = file_digest(path)
            except DataError:
                digests[name] = None
        listed.append([case.dataset, case.name, case.health, case.reference, labels, digests])
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
