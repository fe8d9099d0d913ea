"""ATLAS v2.0: T1w of stroke survivors from dozens of sites with traced lesions; 655 labelled, 300 without labels.

Layout: ``Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz`` and, beside it,
``..._label-L_desc-T1lesion_mask.nii.gz``; ``Testing`` has scans only.
Where: INDI, https://fcon_1000.projects.nitrc.org/indi/retro/atlas.html; a form, then a password. DOI
10.1038/s41597-022-01401-7. Licence: terms of use signed with the form; not to be passed on.
Traps: everything is already on the 1 mm MNI grid (197 x 233 x 189), defaced and intensity-normalised but not stripped;
most lesions are weeks to years old, so dark on T1w; the smallest are of 10 cubic millimetres; ``Testing`` has no
masks, which does not make it healthy; the cohorts (R001 and so on) differ in scanner and in time since the stroke.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hybriduad.core.types import Case
from hybriduad.datasets._layout import gather

LAYOUT = (
    "R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_{T1w,label-L_desc-T1lesion_mask}.nii.gz"
)
PATTERN = (
    r"(?:(?P<half>Training|Testing)/)?(?P<site>R\d+)/sub-\w+/ses-\w+/anat/"
    r"sub-(?P<subject>r\d+s\d+)_ses-(?P<session>[0-9A-Za-z]+)_space-MNI152NLin2009aSym_"
    r"(?P<part>T1w|label-L_desc-T1lesion_mask)\.nii(\.gz)?"
)


def cases(root: str | Path) -> Iterator[Case]:
    """One case a session, with attributes ``site`` and ``half`` (training or testing).

    Raises:
        DataError: nothing of this layout, or a mask without a scan.
    """
    for files in gather(root, PATTERN, {"T1w": "T1w"}, LAYOUT):
        attributes = {"site": files.labels["site"], "half": files.labels["half"].lower()}
        yield Case(
            "ATLAS2",
            files.labels["subject"],
            files.images,
            files.labels["session"],
            lesion=files.parts.get("label-L_desc-T1lesion_mask"),
            health="lesion",
            attributes={key: value for key, value in attributes.items() if value},
        )
