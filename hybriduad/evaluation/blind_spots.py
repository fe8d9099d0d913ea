"""What a detector would miss, before a lab commits: lesions painted into the lab's own healthy scans, and predicted.

Each control is predicted as it is and in several painted versions of it, which together hold lesions of every size, of
varied contrast and place: large ones lie in versions of their own. What is found there says what is found of such
lesions, not of any disease: real lesions are more varied than painted ones. Where there are annotated cases,
:mod:`hybriduad.evaluation.recall_comparison` says how far the two agree.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from hybriduad.cohort.digest import cohort_digest
from hybriduad.cohort.leakage import check_unseen, identities
from hybriduad.cohort.manifest import read_cohort
from hybriduad.core import rng
from hybriduad.core.errors import DataError, reason_of
from hybriduad.core.outcome import Outcome
from hybriduad.core.requests import is_another
from hybriduad.core.types import Case, Prediction, Split
from hybriduad.detector.bundle import Bundle, verify
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector
from hybriduad.evaluation.blind_spot_report import REPORT, write_report
from hybriduad.evaluation.lesion_contrast import look_of
from hybriduad.evaluation.real_lesions import FOLDER, LIKE, lesion_looks, real_records
from hybriduad.evaluation.threshold_curve import LEAST_ML, heights, is_hit
from hybriduad.metrics.clusters import cluster_peak, least_voxels
from hybriduad.metrics.clusters import labelled as components
from hybriduad.prediction.case import predict_case
from hybriduad.scan import brain_ways
from hybriduad.scan.grid import DIRECTIONS
from hybriduad.scan.halves import left_half, side_of
from hybriduad.scan.preparation import mask_on_grid
from hybriduad.scan.volumes import (
    Image,
    VolumeGrid,
    read_volume,
    spacing_of,
    to_ras,
    write_atomically,
    write_json,
    write_volume,
)
from hybriduad.training.native_volume import NativeVolume, native_volume
from hybriduad.training.planned_lesions import APART_MM, FRONT, HEIGHT, SIZES_ML, Placed, paint_wishes, wishes

__all__ = ["REPORT", "find_blind_spots", "read_records"]

log = logging.getLogger(__name__)

FORMAT = 2
"""Part of a folder's request: raised whenever the same request would paint other lesions or count otherwise."""
READABLE = (1, FORMAT)
"""Formats that an operating point is chosen from; the first has no lesions over 10 ml."""
REQUEST, CASES, WORK = "request.json", "cases", "work"
MEND = "state who is healthy, or paint beside the lesions of annotated cases (--beside-lesions)"


def find_blind_spots(
    bundle: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    versions: int = 3,
    rule: str | None = None,
    seed: int = 0,
    split: Split | None = None,
    device: str = "auto",
    labelled: str | Path | None = None,
    brain: str | None = None,
    beside_lesions: bool = False,
    like: str | Path | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Paint lesions into healthy scans, predict them and say what is found; a control that was done before is kept.

    A pure function of bundle, controls and seed. ``out`` holds ``lesions.tsv`` (a line a painted lesion),
    ``recall.tsv`` and ``recall.json`` (by size, contrast and place), ``recall.png``, ``curve.tsv`` (over thresholds)
    and ``blind-spots.md``, which says it in sentences; ``cases/`` is what the operating point is chosen from.

    Args:
        bundle: a detector's folder, or a reconstructor's.
        cohort: manifest CSV, BIDS folder or one image; cases whose ``health`` is not "healthy" are left out.
        out: the folder.
        versions: how many lesions of each small size a control gets, each in a version of its own; of the large sizes
            it gets a third as many, in further versions.
        rule: which calibrated rule makes the masks; the bundle's default rule by default.
        seed: of the lesions.
        split: only the cases of that split.
        device: "auto", "cpu", "cuda", "cuda:1".
        labelled: a cohort whose cases with a lesion mask are predicted too: what of their lesions is found is said
            beside.
        brain: how the brains of heads are found, as :func:`hybriduad.scan.brain_ways.chosen` takes it; by default as
            ``bundle`` says. A rule of a bundle with other brains cuts the masks, but was not found on such.
        beside_lesions: paint into cases with a lesion mask too, apart from their lesions: for want of healthy people.
        like: annotated cases, those that the bundle was fitted on too, of which nothing is predicted: the looks of
            their lesions (contrast, height in the brain) weigh the painted ones.
        overwrite: replace what another request left in ``out``.

    Raises:
        LeakageError: a control was used to fit the bundle, of which it says nothing, or a labelled case to fit or
            calibrate it.
        ConfigError: a rule that was not calibrated, a way to the brain that is not installed, or something else in
            ``out``.
        DataError: no healthy case, cases of one name, or none that could be used.
        BundleError: an unusable bundle.
    """
    model, folder = verify(bundle), Path(out)
    model.thresholds.by_part(rule)
    anatomy = brain_ways.chosen(model.anatomy, brain)
    way = {} if brain is None else {"brain": brain_ways.brain_name(anatomy)}
    cases = [
        case
        for case in read_cohort(cohort, split=split)
        if case.health == "healthy" or (beside_lesions and case.lesion is not None)
    ]
    if not cases:
        raise DataError(
            "no healthy case to paint into", where=cohort, expected="cases with health 'healthy'", mend=MEND
        )
    if len({case.name for case in cases}) < len(cases):
        raise DataError("cases of one name", where=cohort, mend="look at one data set at a time")
    asked = {"rule": rule, "versions": versions, "seed": seed, **way}
    asked |= {"beside_lesions": True} if beside_lesions else {}
    request = {"format": FORMAT, "bundle": model.digest, **asked, "cohort": cohort_digest(cases)}
    _begin(folder, request, overwrite)
    seen = {digest: role for digest, role in model.used.items() if role != "calibrate"}
    failed = check_unseen(cases, seen, model.anatomy.contrasts)
    detector = load_detector(model.folder, device)
    detector.anatomy = anatomy
    trial = _Trial(model, detector, rule, versions, seed, folder)
    outcome = Outcome(folder, failed={name: reason for (_, name), reason in failed.items()})
    controls = [case for case in cases if case.name not in outcome.failed]  # whatever annotated cases are called
    real = [] if labelled is None else real_records(model, detector, rule, labelled, folder, outcome.failed)
    looks = [] if like is None else lesion_looks(anatomy, model.record["direction"], like, folder, outcome.failed)
    records = []
    for case in controls:
        began = time.perf_counter()
        try:
            path = folder / CASES / f"{case.name}.json"
            known = path.is_file()
            if not known:
                write_atomically(path, json.dumps(trial.record(case), indent=1).encode())
            records.append(json.loads(path.read_text(encoding="utf-8")))
        except Exception as error:  # no error of a case ends the others
            outcome.failed[case.name] = reason_of(error)
            log.error("%s failed: %s", case.name, outcome.failed[case.name])
            log.debug("traceback of %s", case.name, exc_info=True)
            continue
        (outcome.kept if known else outcome.done).append(case.name)
        found = [lesion["found_at"] > 0 for lesion in records[-1]["lesions"]]
        log.info("%s: %d lesions painted, %.1f s", case.name, len(found), time.perf_counter() - began)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    if not any(record["lesions"] for record in records):
        raise DataError("no control could be painted into", where=cohort, got=next(iter(outcome.failed.values()), None))
    cut_by = "" if model.thresholds.of("score", rule) is None else rule or model.thresholds.default
    known_people = sum(bool(record["identities"].keys() & model.used) for record in records)
    write_report(folder, records, cut_by, known_people, real, looks)
    return outcome


def _begin(folder: Path, request: Mapping[str, Any], overwrite: bool) -> None:
    """Make the folder, or check that what is there is of the same request."""
    is_another(folder, REQUEST, request, "blind spots", overwrite)
    for name in (CASES, FOLDER, LIKE) if overwrite else ():
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / CASES).mkdir(parents=True, exist_ok=True)
    write_json(folder / REQUEST, request)


@dataclass(frozen=True)
class _Trial:
    """The same detector and lesions for every control."""

    model: Bundle
    detector: Detector
    rule: str | None
    versions: int
    seed: int
    folder: Path

    def record(self, case: Case) -> dict[str, Any]:
        """What becomes of a control: false lesions in it, and each lesion that is painted into it."""
        contrasts = tuple(name for name in self.model.anatomy.contrasts if name in case.images)
        reference = case.reference_contrast(self.model.anatomy.contrasts)
        chosen = contrasts if reference in contrasts else (*contrasts, reference)
        clean_case = replace(case, images={name: case.images[name] for name in chosen}, reference=reference)
        clean = predict_case(self.detector, clean_case, rule=self.rule)
        volume = native_volume(clean_case, chosen, clean.brain)
        generator = rng.numpy_rng(self.seed, "blind spots", case.dataset, case.name)
        planned = wishes(self.versions, generator)
        own = self._own_lesions(case, clean)
        occupied = volume.of_scan(own)
        painted = [paint_wishes(volume, chosen, wanted, generator, occupied) for wanted in planned]
        score = _score(clean)
        brain = clean.brain & (apart_from(own, clean.grid) if own.any() else True)
        voxels = least_voxels(LEAST_ML, math.prod(spacing_of(clean.grid.affine)) / 1000)
        masks = [volume.on_scan(lesion.mask) for _, placed in painted for lesion in placed]
        before, false = heights(score, brain, masks, voxels)
        lesions: list[dict[str, Any]] = []
        for number, (corruption, placed) in enumerate(painted):
            work = self.folder / WORK / case.name
            work.mkdir(parents=True, exist_ok=True)
            images = {}
            for index, name in enumerate(chosen):
                scan = read_volume(case.images[name])
                images[name] = work / f"{number}_{name}.nii.gz"
                write_volume(images[name], volume.scan_with(corruption, scan, index), scan.grid)
            prediction = predict_case(self.detector, replace(clean_case, images=images), rule=self.rule)
            shutil.rmtree(work)
            shown = [volume.on_scan(lesion.mask) for lesion in placed]
            reached, _ = heights(_score(prediction), prediction.brain, shown, voxels)
            tissue = volume.brain & ~corruption.lesion & ~corruption.ignore & ~occupied
            axis = DIRECTIONS.index(self.model.record["direction"])
            was = None if clean.mask is None else volume.of_scan(clean.mask)
            for lesion, mask, at, alone in zip(
                placed, shown, reached, self._alone(prediction, clean, shown), strict=True
            ):
                after = None if alone is None else volume.of_scan(alone)
                look = look_of(volume, corruption.image, lesion.mask, tissue, axis, after, was)
                known = _described(lesion, mask, volume, number, at, before[len(lesions)], alone, clean)
                lesions.append(known | look)
        return {
            "case": case.name,
            "person": [case.dataset, case.subject],
            "identities": identities([clean_case], "calibrate", self.model.anatomy.contrasts),
            "false": false,
            "false_in_mask": None if clean.mask is None else len(components(clean.mask & brain)[1]),
            "threshold": clean.threshold,
            "peak": cluster_peak(score, brain, voxels),
            "lesions": lesions,
        }

    def _alone(
        self, prediction: Prediction, clean: Prediction, lesions: Sequence[np.ndarray]
    ) -> Iterator[np.ndarray | None]:
        """For each lesion of a painted version the mask of a scan in which it is the only one, None uncalibrated.

        What lies nearer to another lesion has the score of the scan as it was. With all of them a threshold that is
        set by scan would be lower: the more there is to find, the less sure a voxel need be.
        """
        everywhere = np.zeros(clean.brain.shape, np.uint8)
        for number, lesion in enumerate(lesions, start=1):
            everywhere[lesion] = number
        spacing = spacing_of(clean.grid.affine)
        if not lesions:
            return
        _, places = ndimage.distance_transform_edt(everywhere == 0, sampling=spacing, return_indices=True)
        nearest = everywhere[tuple(places)]
        for number in range(1, len(lesions) + 1):
            score = np.where(nearest == number, _score(prediction), _score(clean))
            yield self.detector.thresholds.mask("score", score, prediction.brain, math.prod(spacing) / 1000, self.rule)[
                0
            ]

    def _own_lesions(self, case: Case, clean: Prediction) -> np.ndarray:
        """The lesions that a control has already, (X, Y, Z) bool on its scan: none of healthy people."""
        case.check(("lesion", "ignore"))
        own = np.zeros(clean.brain.shape, bool)
        for kind, path in (("lesion", case.lesion), ("ignore", case.ignore)):
            if path is not None:
                own |= mask_on_grid(path, case, kind, clean.grid, clean.notes)
        return own


def apart_from(lesions: np.ndarray, grid: VolumeGrid) -> np.ndarray:
    """Where a volume (X, Y, Z) is at least :data:`~hybriduad.training.planned_lesions.APART_MM` from lesions; bool."""
    return np.asarray(ndimage.distance_transform_edt(~lesions, sampling=spacing_of(grid.affine)) >= APART_MM)


def _score(prediction: Prediction) -> np.ndarray:
    if prediction.score is None:
        raise DataError("prediction without a score")
    return prediction.score


def _described(
    lesion: Placed,
    mask: np.ndarray,
    volume: NativeVolume,
    version: int,
    found_at: float,
    marked_at: float,
    alone: np.ndarray | None,
    clean: Prediction,
) -> dict[str, Any]:
    """A painted lesion as in a record; ``mask``, on the scan's grid, is where it is, ``alone`` the predicted mask."""
    left = left_half(volume.brain)[lesion.mask].mean()
    place = np.argwhere(to_ras(Image(mask, volume.grid))[0]).mean(axis=0)
    x, y, z = volume.grid.affine_ras[:3, :3] @ place + volume.grid.affine_ras[:3, 3]
    low, high = SIZES_ML[lesion.wish.size]
    in_template = {}
    if "template" in clean.notes:
        moved = np.array(clean.notes["template"]["matrix"]) @ (x, y, z, 1.0)
        in_template = {"template_mm": [round(float(value), 1) for value in moved[:3]]}
    found = marked = None
    if alone is not None and clean.mask is not None:
        marked = is_hit(clean.mask, mask)
        found = is_hit(alone, mask) and not marked
    return {
        "version": version,
        "size_ml": f"{low:g}-{high:g}",
        "volume_ml": round(lesion.volume_ml, 4),
        "contrast": lesion.wish.contrast,
        "change": round(lesion.change, 4),
        "front": FRONT[lesion.front],
        "height": HEIGHT[lesion.height],
        "side": side_of(float(left)),
        "x_mm": round(float(x), 1),
        "y_mm": round(float(y), 1),
        "z_mm": round(float(z), 1),
        **in_template,
        "found_at": found_at,
        "marked_at": marked_at,
        "found": found,
        "marked_before": marked,
    }


def read_records(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The request and the records of a folder of blind spots.

    Raises:
        DataError: it holds none, or of another version.
    """
    folder = Path(folder)
    try:
        request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
        records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / CASES).glob("*.json"))]
        number = request["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        mend = "name a folder made by blind-spots"
        raise DataError("no blind spots", where=folder, got=str(error), mend=mend) from error
    if number not in READABLE or not records:
        got = f"format {number}, {len(records)} controls"
        raise DataError("blind spots of another version", where=folder, got=got, mend="run blind-spots again")
    return request, records
