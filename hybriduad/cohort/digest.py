"""The digest of a cohort: work is recognised by the content of its files, whatever their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.datasets._layout import MASKS
from hybriduad.scan.digests import file_digest, mask_files


def cohort_digest(cases: Sequence[Case]) -> str:
    """The sha256 (hex) of all that work on these cases depends on, in their order.

    That is who they are, their health and reference contrast, the content of their images and masks, and which labels
    of a mask count; not the same brains without their lesion, as nothing is learnt from them. An unreadable file enters
    as unreadable: whoever uses it says so, and leaves its case out.
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
