"""The paragraph for a methods section: what was done to a case, each step with the paper of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybriduad.config.runs import NATIVE
from hybriduad.report.facts import left_out, number, rule_of, score_of
from hybriduad.report.records import SYSTEM, Record
from hybriduad.scan.strippers import STRIPPERS

SADM = (
    "Behrendt et al., Combining Reconstruction-based Unsupervised Anomaly Detection with Supervised Segmentation for "
)
SADM += "Brain MRIs, MIDL 2024, PMLR 250:87-102"
N4 = "Tustison et al. 2010, doi:10.1109/TMI.2010.2046908"
REGISTRATION = "mutual information, Mattes et al. 2003, doi:10.1109/TMI.2003.809072"
TEMPLATE = "Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033"
RANKSEG = "Dai and Li, RankSEG, JMLR 24, 2023"
CONFORMAL = "Angelopoulos and Bates, arXiv:2107.07511"
RISK_CONTROL = "Angelopoulos et al., arXiv:2208.02814"


def methods(record: Record, model: Mapping[str, Any]) -> str:
    """The paragraph; of predictions that do not state a step it names none."""
    sentences = [*_score(record, model), *_space(record), *_brain(record), *_mask(record, model)]
    return " ".join([*sentences, "The software is for research use only."])


def _score(record: Record, model: Mapping[str, Any]) -> list[str]:
    content, notes = record.content, record.notes
    stated = content.get("versions")
    versions: Mapping[str, Any] = stated if isinstance(stated, Mapping) else {}
    inputs = content["inputs"] if isinstance(content["inputs"], Mapping) else {}
    contrasts = [name for name in inputs if name != "brain"]
    version, torch = versions.get("hybriduad", "–"), versions.get("torch", "–")
    sentences = [
        f"Anomaly scores were computed with hybriduad {version} (PyTorch {torch}) from "
        f"{' and '.join(contrasts)} ({notes.get('space', NATIVE)} space, {notes.get('direction', 'axial')} slices) "
        f"by the {model.get('kind', 'model')} of sha256 {str(content['bundle'])[:12]}.",
        f"The score, between 0 and 1, is {score_of(model)}"
        + (f" (after {SADM})." if model.get("parts") == ["map", "probability"] else "."),
    ]
    if reconstruction := model.get("reconstruction"):
        sentences.append(f"Healthy anatomy is modelled by {reconstruction}.")
    return sentences


def _space(record: Record) -> list[str]:
    """How scans came to template space; nothing in native space."""
    if record.notes.get("space", NATIVE) == NATIVE:
        return []
    return [
        f"Scans were corrected for their shading by N4 ({N4}) and registered to the ICBM 2009a template "
        f"({TEMPLATE}) with an affine of 12 parameters and no warp ({REGISTRATION})."
    ]


def _brain(record: Record) -> list[str]:
    method = record.brain.get("method")
    if not method:
        return []
    papers = [way.paper for way in STRIPPERS.values() if str(method).startswith(f"{way.distribution} ")]
    return [f"Scores count inside the brain only (brain mask: {'; '.join([str(method), *papers])})."]


def _mask(record: Record, model: Mapping[str, Any]) -> list[str]:
    content = record.content
    if content.get("threshold") is None:
        return []
    rule, entry = str(content.get("rule")), rule_of(record, model.get("thresholds"))
    sentences = [
        f"Lesions were outlined where the score reached {number(content['threshold'], 4)}, by the rule {rule}, set on "
        f"{number(entry.get('subjects'))} subjects; components are 26-connected.",
        *left_out(entry),
    ]
    if rule == "expected-dice" and SYSTEM in (entry.get("calibrations") or {}):
        sentences.append(f"The threshold of a scan maximises its expected Dice ({RANKSEG}).")
    limit = entry.get("limit")
    alpha = limit.get("alpha") if isinstance(limit, Mapping) else None
    if rule.startswith("conformal-") and alpha is not None:
        way = "conformal risk control" if rule == "conformal-voxels" else "split-conformal prediction"
        paper = RISK_CONTROL if rule == "conformal-voxels" else CONFORMAL
        sentences.append(f"The threshold is set by {way} on healthy controls at alpha = {number(alpha)} ({paper}).")
    return sentences
