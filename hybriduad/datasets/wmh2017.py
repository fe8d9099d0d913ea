"""WMH 2017: white matter hyperintensities, FLAIR and T1w of 170 patients, three hospitals, five scanners.

Layout: ``training/Utrecht/0/{pre/FLAIR,pre/T1,wmh}.nii.gz``, ``training/Amsterdam/GE3T/100/...``, ``test/...``.
Where: DataverseNL, DOI 10.34894/AECRSD; https://wmh.isi.uu.nl. DOI 10.1109/TMI.2019.2905770. Licence: read
the terms at the source.
Traps: label 2 of ``wmh.nii.gz`` is other pathology: neither lesion nor healthy, so it goes to ``ignore`` by the
attributes ``lesion_labels`` and ``ignore_labels``, which give the values of that file for either mask; numbers
repeat between scanners, so the subject here is scanner and number; ``pre/T1`` is resampled to the FLAIR,
``orig/3DT1`` is not; ``additional_annotations`` holds other raters and is not read; voxel sizes and the slices'
direction differ by scanner.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybriduad.core.types import Case
from hybriduad.datasets._layout import gather, label

LAYOUT = "Utrecht/0/{pre/FLAIR,pre/T1,wmh}.nii.gz, Singapore/50/..., Amsterdam/GE3T/100/..."
PATTERN = (
    r"(?:(?P<half>training|test)/)?(?:Amsterdam/)?(?P<site>[^/]+)/(?P<number>\d+)/"
    r"(?P<part>pre/FLAIR|pre/T1|wmh)\.nii\.gz"
)
CONTRASTS = {"pre/FLAIR": "FLAIR", "pre/T1": "T1w"}


def cases(root: str | Path) -> Iterator[Case]:
    """One case a patient, with attributes ``site`` (scanner), ``half``, ``lesion_labels`` and ``ignore_labels``.

    Raises:
        DataError: nothing of this layout, or a mask without a scan.
    """
    for files in gather(root, PATTERN, CONTRASTS, LAYOUT):
        site, mask = label(files.labels["site"]), files.parts.get("wmh")
        attributes = {"site": site, "half": files.labels["half"]}
        if mask is not None:
            attributes |= {"lesion_labels": "1", "ignore_labels": "2"}
        yield Case(
            "WMH2017",
            site + files.labels["number"],
            files.images,
            reference="FLAIR" if "FLAIR" in files.images else "",
            lesion=mask,
            ignore=mask,
            health="lesion",
            attributes={key: value for key, value in attributes.items() if value},
        )
