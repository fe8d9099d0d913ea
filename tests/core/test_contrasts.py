"""The table of contrasts."""

from __future__ import annotations

from hybriduad.core.contrasts import LOOKS
from hybriduad.datasets._layout import CONTRASTS


def test_every_contrast_that_a_case_may_have_has_its_look_and_no_other() -> None:
    assert set(LOOKS) == set(CONTRASTS)
    assert {name for name, look in LOOKS.items() if not look.bright_lesions} == {"T1w", "T2starw"}
    assert {name for name, look in LOOKS.items() if look.bright_fluid} == {"T2w", "PDw", "T2starw"}
