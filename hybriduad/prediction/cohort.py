"""Inference on a case or a cohort: maps on the grid of the scan. A case that fails never ends a cohort."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hybriduad.cohort.manifest import read_cohort
from hybriduad.core.errors import DataError, reason_of
from hybriduad.core.outcome import Outcome
from hybriduad.core.types import Split
from hybriduad.detector.bundle import verify
from hybriduad.detector.loading import load_detector
from hybriduad.prediction.case import predict_case
from hybriduad.prediction.files import (
    DEFAULT_MAPS,
    begin_folder,
    check_same_scan,
    record_of,
    wanted_parts,
    write_case,
)
from hybriduad.prediction.quality import with_quality
from hybriduad.scan.brain_ways import brain_name, chosen, is_plausible
from hybriduad.scan.cache import PreparedCache

log = logging.getLogger(__name__)
LACKING = 0.03
"""Share of the brain that a contrast may leave uncovered without a warning."""


def predict_cohort(
    bundle: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    maps: Sequence[str] = DEFAULT_MAPS,
    rule: str | None = None,
    device: str = "auto",
    split: Split | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
    contrast: str | None = None,
    brain: str | None = None,
) -> Outcome:
    """Predict every case of a cohort into a BIDS derivative folder; a case that was done before is kept.

    Args:
        bundle: a detector's folder, or a reconstructor's.
        cohort: manifest CSV, BIDS folder or one image, whose contrast ``contrast`` names if its file name does not.
        out: the predictions folder.
        maps: parts to write (:data:`SUFFIXES`), or ("all",); a part that the bundle lacks is left out.
        rule: which calibrated rule makes the mask; the bundle's default rule by default.
        device: "auto", "cpu", "cuda", "cuda:1".
        split: only the cases of that split.
        cache: folder for prepared volumes that several runs share.
        overwrite: predict again what another bundle or other options left in ``out``.
        brain: how the brains of heads are found, as :func:`hybriduad.scan.brain_ways.chosen` takes it; by default as
            the bundle says, for which alone its thresholds hold.

    Raises:
        ConfigError: unknown maps, a way to the brain that is not installed, or other predictions in ``out``.
        DataError: the cohort cannot be read, has no case of the split, or cases of one name in two data sets.
        BundleError: an unusable bundle.
    """
    wanted = wanted_parts(maps)
    model = verify(bundle)
    cases = read_cohort(cohort, split=split, contrast=contrast)
    if twins := [name for name, count in Counter(case.name for case in cases).items() if count > 1]:
        mend = "predict each data set into a folder of its own"
        raise DataError("cases of one name in different data sets", where=cohort, got=twins, mend=mend)
    detector = load_detector(bundle, device)
    detector.anatomy = chosen(detector.anatomy, brain)
    threshold = detector.thresholds.of("score", rule)
    folder = Path(out)
    begin_folder(folder, model, wanted, rule, overwrite, brain and brain_name(detector.anatomy))
    if threshold is None and "mask" in wanted:
        known = f"the rule {rule or detector.thresholds.default} has no threshold for the score"
        why = known if detector.thresholds.values else "the bundle has no threshold yet"
        log.warning("no masks: %s; 'hybriduad calibrate' sets it", why)
    store = PreparedCache(cache) if cache is not None else None
    outcome = Outcome(folder)
    for case in cases:
        record = record_of(folder, case)
        if overwrite:
            record.unlink(missing_ok=True)
        try:
            if record.is_file():
                check_same_scan(record, case, model.anatomy.contrasts)
                outcome.kept.append(case.name)
                continue
            began = time.perf_counter()
            prediction = predict_case(detector, case, rule=rule, cache=store)
            prediction = with_quality(prediction, case, model.anatomy.contrasts)
            if absent := prediction.notes["absent_contrasts"]:
                log.warning("%s lacks %s: less sure, and thresholds may not fit", case.name, ", ".join(absent))
            if parts := [f"{name} in {s:.0%}" for name, s in prediction.notes["lacking"].items() if s > LACKING]:
                log.warning("%s lacks %s of the brain: less sure there", case.name, ", ".join(parts))
            if not prediction.notes["orientation_stated"]:
                log.warning("%s states no orientation in its header: taken as running left, forward, up", case.name)
            found = prediction.notes["brain"]
            if case.brain is None and not is_plausible(found["volume_ml"]):
                log.warning(
                    "%s has a brain of %.0f ml (%s): look at it", case.name, found["volume_ml"], found["method"]
                )
            write_case(folder, case, prediction, wanted, model, rule or detector.thresholds.default, began)
        except Exception as error:  # no error of a case ends the others
            outcome.failed[case.name] = reason_of(error)
            log.error("%s failed: %s", case.name, outcome.failed[case.name])
            log.debug("traceback of %s", case.name, exc_info=True)
            continue
        outcome.done.append(case.name)
        log.info("%s done in %.1f s (%d of %d)", case.name, time.perf_counter() - began, len(outcome.done), len(cases))
    return outcome
