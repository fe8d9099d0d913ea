"""Inference on a case or a cohort: maps on the grid of the scan. A case that fails never ends a cohort."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from hybriduad.cohort.manifest import read_cohort
from hybriduad.config.runs import NATIVE
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.core.outcome import Outcome
from hybriduad.core.types import Case, Split
from hybriduad.detector.bundle import Bundle, verify
from hybriduad.detector.device import resolve_device
from hybriduad.prediction import runners
from hybriduad.prediction.files import DEFAULT_MAPS, begin_folder, remove_abandoned, wanted_parts
from hybriduad.prediction.group import write_group_tables
from hybriduad.prediction.work import Request, Result
from hybriduad.scan import brain_ways
from hybriduad.scan.atlas import Atlas, read_atlas

log = logging.getLogger(__name__)


def predict_cohort(
    bundle: str | Path,
    cohort: str | Path | Sequence[Case],
    *,
    out: str | Path,
    maps: Sequence[str] = DEFAULT_MAPS,
    rule: str | None = None,
    device: str = "auto",
    split: Split | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    contrast: str | None = None,
    brain: str | None = None,
    atlas: str | Path | None = None,
    atlas_names: str | Path | None = None,
    shard: tuple[int, int] | None = None,
    engine: str | None = None,
    nprocs: int | None = None,
    address: str | None = None,
    log_file: Path | None = None,
    watch: Callable[[Result, int, int], None] | None = None,
) -> Outcome:
    """Predict every case of a cohort into a BIDS derivative folder; a case that was done before is kept.

    It may be stopped at any time: what has a record is done, and the rest is done by the next call. A case that failed
    for what is in its files is not tried again while they are unchanged, and named as failed.

    Args:
        bundle: a detector's folder, or a reconstructor's.
        cohort: manifest CSV, BIDS folder or one image, whose contrast ``contrast`` names if its file name does not; or
            cases.
        out: the predictions folder.
        maps: parts to write (:data:`SUFFIXES`), or ("all",); a part that the bundle lacks is left out.
        rule: which calibrated rule makes the mask; the bundle's default rule by default.
        device: "auto", "cpu", "cuda", "cuda:1".
        split: only the cases of that split.
        cache: folder for prepared volumes that several runs share.
        overwrite: predict again what another bundle or other options left in ``out``.
        brain: how the brains of heads are found, as :func:`hybriduad.scan.brain_ways.chosen` takes it; by default as
            the bundle says, for which alone its thresholds hold.
        atlas: label image in the template space of the bundle, as :func:`hybriduad.scan.atlas.read_atlas` reads it with
            ``atlas_names``: the table of lesions says in which region each lies.
        retry_failed: also try cases again whose unchanged files failed before.
        shard: (i, n), only every n-th case from the i-th on, by name, 1 <= i <= n; shards may run at the same time.
        engine: "local" (this process), "processes" or "ray"; by default the second where ``nprocs`` is above 1.
        nprocs: workers; by default a usable core each.
        address: of a Ray cluster; by default RAY_ADDRESS, else one is started on this machine.
        log_file: a log of this run, which may lie in ``out`` already.
        watch: called after every case with its result, how many are through and how many there are.

    Raises:
        ConfigError: unknown maps or engine, a bad shard, a way to the brain that is not installed, an atlas for a
            bundle in native space, or other predictions in ``out``.
        DataError: the cohort cannot be read, has no case of the split, or cases of one name in two data sets;
            an unusable atlas.
        BundleError: an unusable bundle.
    """
    wanted = wanted_parts(maps)
    chosen = runners.chosen(engine, nprocs, address)
    model = verify(bundle)
    cases = cases_of(cohort, split, contrast, shard)
    threshold = model.thresholds.of("score", rule)
    if chosen != "ray":  # whose machines may have other devices than this
        resolve_device(device)
    if shard is not None and overwrite:
        raise ConfigError("--overwrite in a shard, which would remove what others do", mend="empty the folder first")
    folder = Path(out)
    anatomy = brain_ways.chosen(model.anatomy, brain)  # before anything in the folder is touched
    way = brain_ways.brain_name(anatomy)
    if brain == "auto":  # what is installed here, not on each machine of a cluster
        brain = anatomy.brain or brain_ways.ESTIMATE
    named = atlas_of(model, atlas, atlas_names)
    begin_folder(folder, model, wanted, rule, overwrite, way if brain else None, named, log_file=log_file)
    remove_abandoned(folder)
    if threshold is None and "mask" in wanted:
        _say_no_mask(model, rule)
    request = Request(
        Path(bundle).absolute(),
        folder.absolute(),
        wanted,
        rule,
        device,
        None if cache is None else Path(cache).absolute(),
        overwrite,
        retry_failed,
        brain,
        way,
        None if atlas is None else (Path(atlas).absolute(), Path(atlas_names).absolute() if atlas_names else None),
    )
    outcome = Outcome(folder)
    for number, result in enumerate(runners.results(chosen, request, cases, nprocs, address), start=1):
        _note(outcome, result, number, len(cases))
        if watch is not None:
            watch(result, number, len(cases))
    order = {case.name: place for place, case in enumerate(cases)}
    outcome.done.sort(key=order.__getitem__)
    outcome.kept.sort(key=order.__getitem__)
    outcome.failed = {name: outcome.failed[name] for name in sorted(outcome.failed, key=order.__getitem__)}
    write_group_tables(folder)
    return outcome


def atlas_of(model: Bundle, atlas: str | Path | None, names: str | Path | None) -> Atlas | None:
    """The atlas that is asked for, None without one.

    Raises:
        ConfigError: names without an atlas, or a bundle in native space.
        DataError: as :func:`hybriduad.scan.atlas.read_atlas`.
    """
    if atlas is None:
        if names is not None:
            raise ConfigError("names of labels without an atlas", got=names, mend="name its image: --atlas")
        return None
    if model.anatomy.space == NATIVE:
        mend = "use a bundle that was trained with anatomy.space=MNI152NLin2009aSym, or leave the atlas out"
        raise ConfigError("atlas for a bundle that does not register scans", got=f"space {NATIVE}", mend=mend)
    return read_atlas(atlas, names)


def cases_of(
    cohort: str | Path | Sequence[Case], split: Split | None, contrast: str | None, shard: tuple[int, int] | None
) -> list[Case]:
    """The cases that are asked for, each under a name of its own.

    Raises:
        ConfigError: no such shard.
        DataError: as :func:`predict_cohort`.
    """
    given = isinstance(cohort, str | Path)
    cases = read_cohort(cohort, split=split, contrast=contrast) if isinstance(cohort, str | Path) else list(cohort)
    if twins := [name for name, count in Counter(case.name for case in cases).items() if count > 1]:
        mend = "predict each data set into a folder of its own"
        where = cohort if given else "the cohort"
        raise DataError("cases of one name in different data sets", where=where, got=twins, mend=mend)
    if shard is None:
        return cases
    number, count = shard
    if not 1 <= number <= count:
        raise ConfigError("no such shard", got=f"{number}/{count}", expected="i/n with 1 <= i <= n")
    return sorted(cases, key=lambda case: case.name)[number - 1 :: count]


def _say_no_mask(model: Bundle, rule: str | None) -> None:
    known = f"the rule {rule or model.thresholds.default} has no threshold for the score"
    why = known if model.thresholds.values else "the bundle has no threshold yet"
    log.warning("no masks: %s; 'hybriduad calibrate' sets it", why)


def _note(outcome: Outcome, result: Result, number: int, count: int) -> None:
    """Add a result to the outcome and to the log, whose entries carry it as ``result``."""
    for warning in result.warnings:
        log.warning(warning)
    told = {"result": asdict(result)}
    if result.status == "failed":
        outcome.failed[result.case] = result.reason
        log.error("%s failed: %s", result.case, result.reason, extra=told)
        if result.traceback:
            log.debug("traceback of %s: %s", result.case, result.traceback)
    elif result.status == "kept":
        outcome.kept.append(result.case)
        log.debug("%s was done before (%d of %d)", result.case, number, count, extra=told)
    else:
        outcome.done.append(result.case)
        took = sum(result.seconds.values())
        log.info("%s done in %.1f s (%d of %d)", result.case, took, number, count, extra=told)
