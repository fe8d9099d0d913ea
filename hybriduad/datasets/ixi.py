"""IXI: about 580 healthy Londoners, T1w, T2w and PDw, three hospitals.

Layout: ``IXI-T1/IXI002-Guys-0828-T1.nii.gz``, ``IXI-T2/...-T2.nii.gz``, ``IXI-PD/...-PD.nii.gz``; or all in one folder.
Where: the IXI project, https://brain-development.org/ixi-dataset/. Licence: CC BY-SA 3.0.
Traps: the hospital is in the name only (Guys and HH Philips 1.5 T and 3 T, IOP GE 1.5 T); there is no FLAIR; T1w is on
another grid than T2w and PDw; heads are not stripped; some subjects lack a contrast; OpenBHB contains these subjects,
so training on OpenBHB and testing on IXI is leakage that only the voxels can show.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybriduad.core.types import Case
from hybriduad.datasets._layout import gather

LAYOUT = "files such as IXI-T1/IXI002-Guys-0828-T1.nii.gz, and -T2 and -PD beside"
PATTERN = r"(?P<subject>IXI\d+)-(?P<site>[A-Za-z]+)-(?P<scan>\d+)-(?P<part>T1|T2|PD)\.nii\.gz"
CONTRASTS = {"T1": "T1w", "T2": "T2w", "PD": "PDw"}


def cases(root: str | Path) -> Iterator[Case]:
    """One healthy case a subject, with attributes ``site`` and ``scan``.

    Raises:
        DataError: nothing of this layout, or two files for one contrast of a subject.
    """
    for files in gather(root, PATTERN, CONTRASTS, LAYOUT):
        attributes = {"site": files.labels["site"], "scan": files.labels["scan"]}
        yield Case("IXI", files.labels["subject"], files.images, health="healthy", attributes=attributes)
