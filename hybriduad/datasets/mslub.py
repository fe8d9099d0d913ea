"""MSLUB: 30 patients with multiple sclerosis, T1w, T1w with contrast agent, T2w and FLAIR, consensus of three raters.

Layout: ``patient01/{FLAIR,T1W,T1WKS,T2W,consensus_gt,brainmask}.nii.gz``, or with ``patient01_`` before each name.
Where: Laboratory of Imaging Technologies, University of Ljubljana,
https://lit.fe.uni-lj.si/en/research/resources/3D-MR-MS/. DOI 10.1007/s12021-017-9348-7. Licence: Creative Commons;
read the variant at the source.
Traps: T1WKS is the T1w *with* contrast agent ("kontrastno sredstvo"); copies of the set hold raw, co-registered and
resampled scans side by side, and the consensus fits the co-registered scans: name their folder; the longitudinal
scans of the same group have other names and their masks show *changes*, not lesions; lesions are many and often under
1 ml.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybriduad.core.types import Case
from hybriduad.datasets._layout import gather

LAYOUT = "patient01/{FLAIR,T1W,T1WKS,T2W,consensus_gt,brainmask}.nii.gz"
PATTERN = r"(?P<subject>patient\d+)/(?:(?P=subject)_)?(?P<part>FLAIR|T1W|T1WKS|T2W|consensus_gt|brainmask)\.nii(\.gz)?"
CONTRASTS = {"FLAIR": "FLAIR", "T1W": "T1w", "T2W": "T2w", "T1WKS": "T1wCE"}


def cases(root: str | Path) -> Iterator[Case]:
    """One case a patient.

    Raises:
        DataError: nothing of this layout, masks without a scan, or raw and co-registered scans under one root.
    """
    for files in gather(root, PATTERN, CONTRASTS, LAYOUT):
        yield Case(
            "MSLUB",
            files.labels["subject"],
            files.images,
            brain=files.parts.get("brainmask"),
            lesion=files.parts.get("consensus_gt"),
            health="lesion",
        )
