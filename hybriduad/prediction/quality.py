"""What is to be known of a scan before its prediction is believed, in its notes and in the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from hybriduad.core.types import Case, Prediction
from hybriduad.scan.quality import brain_measure, case_measures, register_measure
from hybriduad.scan.volumes import Image

log = logging.getLogger(__name__)


def with_quality(prediction: Prediction, case: Case, contrasts: Sequence[str]) -> Prediction:
    """The prediction of a case, on the grid of its scan, with ``quality`` among its notes; every flag is logged.

    ``flags`` holds each measure beyond its limit: ``name``, ``value``, ``limit``, ``sentence``; it is empty for a scan
    that none stands against. ``out_of_distribution`` holds the ``distance`` of the scan from the training slices and
    the ``limit`` above which it is unlike them, and is None where the bundle knows no limit.

    Raises:
        DataError: a scan cannot be read.
    """
    measures = case_measures(case, Image(prediction.brain, prediction.grid), contrasts)
    notes = dict(prediction.notes)
    if case.brain is None:
        measures.append(brain_measure(notes["brain"]))
    if "template" in notes:
        measures.append(register_measure(notes["template"]))
    flags = [measure.to_json() for measure in measures if measure.flagged] + notes.pop("appearance", [])
    for flag in flags:
        log.warning("%s: %s", case.name, flag["sentence"])
    familiarity = notes.pop("out_of_distribution", None)
    if familiarity and familiarity["distance"] > familiarity["limit"]:
        stated = (familiarity["distance"], familiarity["limit"])
        log.warning("%s: unlike the scans of the training: distance %.1f, limit %.1f", case.name, *stated)
    return replace(prediction, notes=notes | {"quality": {"flags": flags, "out_of_distribution": familiarity}})
