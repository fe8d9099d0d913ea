"""Which contrast a series is, by the words of its description and by the times of its sequence.

The words come first, since they are what the scanner's staff meant; a contradiction between both is said. Times are
those of the BIDS sidecar, in seconds. A guess is a guess: what it rests on is stated, and users may override it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybriduad.exchange.dicom_series import DicomSeries

FEWEST_SLICES = 10
"""A series with fewer images is a localizer or covers no brain."""
_EDGE = r"(?<![a-z0-9]){}(?![a-z])"
OTHER = {
    "a localizer": r"locali[sz]er|\bloc\b|scout|survey|\b3.?plane|\bplan\b|smartbrain|aahead",
    "diffusion": r"dwi|diff|\badc\b|dti|trace|\bfa\b|\bb.?1000",
    "susceptibility": r"swi|swan|venbold|\bqsm\b|\bmip\b",
    "perfusion": r"perf|\bdsc\b|\bdce\b|\basl\b|pcasl|cbf|cbv|mtt",
    "functional": r"bold|fmri|\bepi\b|rest(ing)?.?state",
    "an angiography": r"angio|\bmra\b|\btof\b|\bmrv\b|venogra|inhance",
    "a field map": r"field.?map|fmap|\bb0\b|gre_field|phoenix|\bb1.?map",
    "spectroscopy": r"spectro|\bmrs\b|\bcsi\b|\bpress\b",
    "not the brain": r"spine|lumbar|cervical|thorac|\bneck\b|orbit|pituit|knee|abdomen",
    "a subtraction or report": r"subtract|\bsub\b|screen.?save|report|colou?r.?map",
}
"""What is no anatomy of the brain -> the words that say so."""
WORDS = {
    "FLAIR": r"flair|dark.?fluid|\btirm\b|da.fl",
    "T2starw": r"t2.?\*|t2.?star|h[a]?emo|\bffe\b.*t2",
    "T1w": _EDGE.format("t1") + r"|t1w|mp2?.?rage|spgr|bravo|\btfe\b|tfe3d|\bvibe\b|\bflash\b|\btfl\b",
    "PDw": _EDGE.format("pd") + r"|pdw|\bpd.?tse|proton",
    "T2w": _EDGE.format("t2") + r"|t2w|\bcube\b|\bspace\b|\bvista\b",
}
"""Contrast -> words; the first that fits counts, but a FLAIR called T1 is T1w."""
AGENT = (
    r"\+ ?c\b|\bc\+|\bgd\b|gado|\bgad\b|\bpost\b|(?<!no )(?<!pre )(?<!non )(?<!without )contrast"
    r"|\bce\b|\bkm\b|\bmdc\b|dotarem"
)


@dataclass(frozen=True)
class Guess:
    """A contrast, "" for a series to leave out, and what says so, in words."""

    contrast: str
    why: str


def no_anatomy(series: DicomSeries) -> str:
    """Why a series is no anatomical scan of a brain, by its header; "" if nothing says so."""
    kind = set(series.image_type)
    text = _text(series)
    if series.modality != "MR":
        return f"modality {series.modality or 'not stated'}, not MR"
    if "LOCALIZER" in kind:
        return "image type LOCALIZER"
    if other := next((name for name, words in OTHER.items() if re.search(words, text)), ""):
        return f"called {series.description!r}: {other}"
    if kind & {"DERIVED", "SECONDARY"}:
        return f"image type {'DERIVED' if 'DERIVED' in kind else 'SECONDARY'}"
    if kind & {"PHASE", "P", "REAL", "IMAGINARY"} and not kind & {"M", "MAGNITUDE"}:
        return "no magnitude image"
    if series.images < FEWEST_SLICES:
        return f"{series.images} images, fewer than {FEWEST_SLICES}"
    return ""


def guess_contrast(series: DicomSeries, sidecar: Mapping[str, Any]) -> Guess:
    """The contrast of a converted series; ``sidecar`` is the BIDS sidecar of dcm2niix, times in seconds."""
    text = _text(series)
    said, timed = _by_words(text), _by_times(sidecar)
    times = ", ".join(
        f"{short} {sidecar[name] * 1000:.0f} ms"
        for short, name in (("TE", "EchoTime"), ("TR", "RepetitionTime"), ("TI", "InversionTime"))
        if isinstance(sidecar.get(name), int | float)
    )
    contrast = said or timed
    if not contrast:
        return Guess("", f"contrast not recognised ({times or 'no times stated'})")
    why = f"called {series.description or series.protocol!r}" if said else f"by {times}"
    if said and timed and {said, timed} not in ({said}, {"T2w", "PDw"}, {"T2w", "T2starw"}):
        why += f", though {times} would be {timed}"
    if contrast == "T1w" and (series.agent or re.search(AGENT, text)):
        contrast, why = "T1wCE", why + (", contrast agent stated" if series.agent else ", contrast agent by its name")
    return Guess(contrast, why)


def _text(series: DicomSeries) -> str:
    return f"{series.description} {series.protocol}".casefold().replace("_", " ")


def _by_words(text: str) -> str:
    found = next((contrast for contrast, words in WORDS.items() if re.search(words, text)), "")
    return "T1w" if found == "FLAIR" and re.search(WORDS["T1w"], text) else found


def _by_times(sidecar: Mapping[str, Any]) -> str:
    """By echo, repetition and inversion time: the usual ranges at 1.5 and 3 tesla; "" between them."""
    echo, repetition, inversion = (
        float(sidecar.get(name) or 0) for name in ("EchoTime", "RepetitionTime", "InversionTime")
    )
    if not (echo and repetition):
        return ""
    if inversion >= 1.4 and repetition >= 4:
        return "FLAIR"
    if echo <= 0.03 and (repetition <= 1.0 or 0.3 <= inversion <= 1.3):
        return "T1w"
    if repetition >= 2 and not inversion:
        return "T2w" if echo >= 0.06 else "PDw" if echo <= 0.03 else ""
    return ""
