"""BraTS 2023: adult, paediatric and sub-Saharan glioma, meningioma, metastases; 1 mm SRI24 grid, skull-stripped.

Layout: ``BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz``; the last number is the time point.
Where: Synapse (BraTS 2023, project syn51156910) after registration. Licence: see the terms at the source, by cohort.
Traps: names and labels changed after 2021 (labels 1, 2, 3; t1n, t1c, t2w, t2f); several time points are one patient,
kept together here as sessions; the adult gliomas are largely those of BraTS 2021 under new numbers, which only the
voxels can show; meningiomas lie outside the brain; post-operative releases add label 4, the resection cavity.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybriduad.core.types import Case
from hybriduad.datasets._layout import gather

LAYOUT = "BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz"
PATTERN = r"BraTS-(?P<cohort>[A-Z]+)-(?P<number>\w+)-(?P<session>\d+)-(?P<part>t1n|t1c|t2w|t2f|seg)\.nii(\.gz)?"
CONTRASTS = {"t2f": "FLAIR", "t1n": "T1w", "t2w": "T2w", "t1c": "T1wCE"}


def cases(root: str | Path) -> Iterator[Case]:
    """One case a time point; subject ``GLI00000``, session ``000``; lesion is every non-zero label.

    Raises:
        DataError: nothing of this layout, or a segmentation without a scan.
    """
    for files in gather(root, PATTERN, CONTRASTS, LAYOUT):
        cohort, number, session = (files.labels[key] for key in ("cohort", "number", "session"))
        yield Case(
            "BraTS2023",
            f"{cohort}{number}",
            files.images,
            session,
            lesion=files.parts.get("seg"),
            health="lesion",
            attributes={"cohort": cohort},
        )
