"""BraTS 2021: 1,251 labelled glioma patients before surgery, four contrasts, 1 mm SRI24 grid, skull-stripped.

Layout: ``BraTS2021_00000/BraTS2021_00000_{flair,t1,t1ce,t2,seg}.nii.gz``.
Where: Synapse (RSNA-ASNR-MICCAI BraTS 2021) after registration, and The Cancer Imaging Archive, DOI 10.7937/jc8x-9874.
Licence: see the terms at the source, which differ by contributor. Paper: arXiv 2107.02314.
Traps: labels are 1, 2 and 4 (not 3), and all of them are lesion here; the validation cases have no labels, which
does not make them healthy; scans of TCGA and earlier BraTS years are inside, so TCGA-LGG and TCGA-GBM must not be
tested against a model of this set; the 2023 release holds the same patients under other names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybriduad.core.types import Case
from hybriduad.datasets._layout import gather

LAYOUT = "BraTS2021_00000/BraTS2021_00000_{flair,t1,t1ce,t2,seg}.nii.gz"
PATTERN = r"BraTS2021_(?P<subject>\d+)_(?P<part>flair|t1|t1ce|t2|seg)\.nii(\.gz)?"
CONTRASTS = {"flair": "FLAIR", "t1": "T1w", "t1ce": "T1wCE", "t2": "T2w"}


def cases(root: str | Path) -> Iterator[Case]:
    """One case a patient; lesion is every non-zero label.

    Raises:
        DataError: nothing of this layout, or a segmentation without a scan.
    """
    for files in gather(root, PATTERN, CONTRASTS, LAYOUT):
        lesion = files.parts.get("seg")
        yield Case("BraTS2021", files.labels["subject"], files.images, lesion=lesion, health="lesion")
