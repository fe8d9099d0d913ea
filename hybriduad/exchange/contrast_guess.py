"""Which contrast a series is, by the words of its description and by the times of its sequence.

The words come first, since they are what the scanner's staff meant; a contradiction between both is said. They are
those of the series' description, and of the protocol only where there is no description: some scanners write one
protocol for the whole examination. Times are those of the BIDS sidecar, in seconds. A guess is a guess: what it rests
on is stated, and users may override it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybriduad.exchange.dicom_series import WITHHELD, DicomSeries

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
AGENT = r"\+ ?c\b|\bc\+|\bgd\b|gado|\bgad\b|\bpost\b(?!.?(op|surg|rt\b|rx\b))|contrast|\bce\b|\bkm\b|\bmdc\b|dotarem"
WITHOUT = (
    r"(\bw/?o|\bwithout|\bnon?|\bpre|\bvor\b|\bohne\b|\bsans\b|\bsin\b|\bsenza\b)[ ./-]*(iv )?"
    r"(contrast|kontrast|gado|gad\b|gd\b|km\b|mdc\b|ce\b|c\b|agent|inject|enhanc|dotarem|produit|medio)"
    r"|unenhanced|\bnativ"
)
"""That there was no agent, which holds before what says that there was: the words are the same."""
WITH_AND_WITHOUT = (
    r"\bw(ith)?\b ?/? ?(and|&|\+|or)? ?w(ithout|/?o)\b|\bwwo\b|\bmit ?(und|/) ?ohne\b|\bpre ?(/|and|&|\+) ?post\b"
)
"""The name of an examination, which does not say which of its two series this is."""


@dataclass(frozen=True)
class Guess:
    """A contrast, "" for a series to leave out, and what says so, in words."""

    contrast: str
    why: str


def no_anatomy(series: DicomSeries) -> str:
    """Why a series is no anatomical scan of a brain, by its header; "" if nothing says so."""
    kind = set(series.image_type)
    name = _name(series)
    text = _plain(name)
    if series.modality != "MR":
        return f"modality {series.modality or 'not stated'}, not MR"
    if "LOCALIZER" in kind:
        return "image type LOCALIZER"
    if other := next((what for what, words in OTHER.items() if re.search(words, text)), ""):
        return f"called {name!r}: {other}"
    if kind & {"DERIVED", "SECONDARY"}:
        return f"image type {'DERIVED' if 'DERIVED' in kind else 'SECONDARY'}"
    if kind & {"PHASE", "P", "REAL", "IMAGINARY"} and not kind & {"M", "MAGNITUDE"}:
        return "no magnitude image"
    if series.images < FEWEST_SLICES:
        return f"{series.images} images, fewer than {FEWEST_SLICES}"
    return ""


def guess_contrast(series: DicomSeries, sidecar: Mapping[str, Any]) -> Guess:
    """The contrast of a converted series; ``sidecar`` is the BIDS sidecar of dcm2niix, times in seconds."""
    name = _name(series)
    said, timed = _by_words(_plain(name)), _by_times(sidecar)
    times = ", ".join(
        f"{short} {sidecar[name] * 1000:.0f} ms"
        for short, name in (("TE", "EchoTime"), ("TR", "RepetitionTime"), ("TI", "InversionTime"))
        if isinstance(sidecar.get(name), int | float)
    )
    contrast = said or timed
    if not contrast:
        return Guess("", f"contrast not recognised ({times or 'no times stated'})")
    why = f"called {name!r}" if said else f"by {times}"
    if said and timed and {said, timed} not in ({said}, {"T2w", "PDw"}, {"T2w", "T2starw"}):
        why += f", though {times} would be {timed}"
    if contrast == "T1w":
        agent, reason = _agent(series, _plain(name))
        contrast, why = "T1wCE" if agent else "T1w", why + reason
    return Guess(contrast, why)


def _agent(series: DicomSeries, text: str) -> tuple[bool, str]:
    """Whether a contrast agent was given, and what says so, "" if nothing does: the name before the header, which may
    hold the agent of the whole examination."""
    both = re.search(WITH_AND_WITHOUT, text)
    if not both and re.search(WITHOUT, text):
        return False, ", without contrast agent by its name" + (", though one is stated" if series.agent else "")
    if series.agent:
        return True, ", contrast agent stated"
    if both:
        return False, ", no contrast agent stated"
    return (True, ", contrast agent by its name") if re.search(AGENT, text) else (False, "")


def _name(series: DicomSeries) -> str:
    return series.protocol if series.description in ("", WITHHELD) else series.description


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ")


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
