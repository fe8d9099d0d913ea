"""How lesions and fluid look on each contrast: stated once, for baselines and for what is painted."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """Whether most lesions are brighter than the tissue around them, and whether fluid is the brightest of a brain."""

    bright_lesions: bool
    bright_fluid: bool


LOOKS = {
    "FLAIR": Look(bright_lesions=True, bright_fluid=False),
    "T1w": Look(bright_lesions=False, bright_fluid=False),
    "T2w": Look(bright_lesions=True, bright_fluid=True),
    "T1wCE": Look(bright_lesions=True, bright_fluid=False),
    "PDw": Look(bright_lesions=True, bright_fluid=True),
    "T2starw": Look(bright_lesions=False, bright_fluid=True),
}
"""Every contrast that a bundle may have; what is not bright is dark."""
