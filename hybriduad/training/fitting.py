"""The two stages as functions: a cohort and a config in, a bundle out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hybriduad.cohort.digest import cohort_digest
from hybriduad.config import files as configs
from hybriduad.config.runs import Anatomy, DetectorRun, Precision, ReconstructorRun, Residual
from hybriduad.core import plugins, rng
from hybriduad.core.errors import ConfigError
from hybriduad.core.types import Case
from hybriduad.detector import bundle as bundles
from hybriduad.detector.bundle import Bundle, Description
from hybriduad.detector.device import resolve_device, resolve_precision, usable_precision
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_reconstructor, load_weights
from hybriduad.networks.segmenter import Segmenter
from hybriduad.reconstructors._base import FeatureReconstructor, Reconstructor
from hybriduad.scan.brain_ways import ESTIMATE, brain_name, chosen, chosen_to_fit
from hybriduad.scan.digests import file_digest
from hybriduad.scan.grid import SIDED
from hybriduad.training.data import (
    contrast_summary,
    labelled_cases,
    prepare_training_data,
    training_cases,
    training_summary,
)
from hybriduad.training.loop import run_training
from hybriduad.training.resuming import Workshop
from hybriduad.training.sample_sheet import draw_samples
from hybriduad.training.samples import SampleStream, build_pool, for_contrasts
from hybriduad.training.statistics import reference_statistics
from hybriduad.training.tasks import ReconstructionTask, SegmentationTask, Task
from hybriduad.training.validation import figures, painted_slices

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where and how a stage runs, as :func:`fit_reconstructor` and :func:`fit_detector` take it."""

    out: Path
    device: str
    cache: Path | None
    overwrite: bool
    data_licence: str


def fit_reconstructor(
    config: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    device: str = "auto",
    cache: str | Path | None = None,
    overwrite: bool = False,
    data_licence: str = "not stated",
    brain: str | None = None,
) -> Bundle:
    """Stage 1: learn healthy anatomy from healthy scans and from lesion-free slices of annotated scans.

    Args:
        config: path or name of a shipped config of kind ``reconstructor``.
        cohort: manifest CSV, BIDS folder or image; where it has splits, its "train" cases.
        out: the bundle's folder; a training that was stopped there continues.
        overrides: ``dotted.key=value``.
        device: "auto", "cpu", "cuda", "cuda:1".
        cache: folder for prepared volumes that several runs share; by default they live as long as the training.
        overwrite: train anew and, when the new bundle is complete, replace the old in ``out``; a training of the same
            request that was stopped there continues all the same.
        data_licence: of the cohort, stated in the bundle.
        brain: how the brains of heads are found, as :func:`hybriduad.scan.brain_ways.chosen` takes it; stated in the
            bundle. By default what ``anatomy.brain`` says, else what is installed.

    Raises:
        ConfigError: an unusable config, a way to the brain that is not installed, or other work in ``out``.
        DataError: no usable case, no healthy slice, or a loss that is not finite.
    """
    run: ReconstructorRun = configs.load(config, list(overrides), kind="reconstructor")
    if run.mix.labelled > 0:
        mend = "set it to 0: a reconstructor would learn to reproduce lesions"
        raise ConfigError("labelled slices in stage 1", got=f"mix.labelled {run.mix.labelled}", mend=mend)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(run.seed, "weights"))
        family = plugins.load("reconstructors", run.model.name)
        model: Reconstructor = family.Model(run.model, len(run.anatomy.contrasts), run.anatomy.size)
    _check_residual(run, model)
    if model.pretrained is not None:
        model.load_pretrained(model.pretrained)
    return _fit(
        run,
        chosen_to_fit(run.anatomy, brain),
        cohort,
        Place(Path(out), device, Path(cache) if cache is not None else None, overwrite, data_licence),
        task=ReconstructionTask(run, model),
        reconstructor=model,
    )


def fit_detector(
    config: str | Path,
    cohort: str | Path,
    *,
    out: str | Path,
    reconstructor: str | Path | None = None,
    init: str | Path | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    cache: str | Path | None = None,
    overwrite: bool = False,
    data_licence: str = "not stated",
    brain: str | None = None,
) -> Bundle:
    """Stage 2 and few-label fine-tuning: learn to outline lesions, synthetic, labelled or both, as ``mix`` says.

    ``cohort``, ``out``, ``overrides``, ``device``, ``cache``, ``overwrite`` and ``data_licence`` are as in
    :func:`fit_reconstructor`.

    Args:
        config: path or name of a shipped config of kind ``detector``.
        brain: as there; by default as the bundle that is started from says.
        reconstructor: stage 1's bundle; with neither it nor ``init`` the segmenter sees the image alone.
        init: a detector's bundle to continue from; its reconstructor and segmenter layout are taken over, and its
            residual unless another is stated. With ``train.steps=0`` its weights stay, and with them its precision and
            the seed of its noise: the same networks under another ``fusion``, ``residual`` or ``mirror``.
        limit: how many labelled patients may be learnt from, drawn by the seed; by default all.

    Raises:
        ConfigError: an unusable config, both reconstructor and init or a bundle of another kind, a segmenter that is
            not that of ``init`` or that would see reconstructions where the reconstructor has no image, a limit without
            labelled slices, levels for a segmenter that sees no reconstruction, or other work in ``out``.
        DataError: no usable case, no healthy slice, fewer labelled patients than ``limit``, a loss that is not finite.
    """
    run: DetectorRun = configs.load(config, list(overrides), kind="detector")
    if reconstructor is not None and init is not None:
        raise ConfigError(
            "both a reconstructor and a detector to start from", mend="a detector holds its reconstructor: drop either"
        )
    if limit is not None and run.mix.labelled == 0:
        raise ConfigError("limit without labelled slices", got=f"limit {limit}", expected="mix.labelled above 0")
    parent = bundles.verify(init) if init is not None else None
    if parent is not None and parent.kind != "detector":
        mend = "give a reconstructor as --reconstructor"
        raise ConfigError("not a detector to start from", where=parent.folder, got=parent.kind, mend=mend)
    stage1 = bundles.verify(reconstructor) if reconstructor is not None else parent and parent.reconstructor
    if stage1 is not None and stage1.kind != "reconstructor":
        raise ConfigError("not a reconstructor", where=stage1.folder, got=stage1.kind, mend="pass a detector as --init")
    if parent is not None:
        if "segmenter" in run.model_fields_set and run.segmenter != parent.run.segmenter:
            where = f"the config and {parent.folder}"
            raise ConfigError("two different segmenters", where=where, mend="leave it out: --init brings its own")
        run = run.model_copy(update={"segmenter": parent.run.segmenter})
    source = parent or stage1
    if run.residual is None and source is not None:
        run = run.model_copy(update={"residual": source.residual})  # resolved, so that a child bundle keeps it too
    anatomy = _anatomy(run, source, brain)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(run.seed, "weights"))
        segmenter = Segmenter(run.segmenter, len(anatomy.contrasts))
    if stage1 is None and segmenter.needs_reconstruction:
        raise ConfigError(
            "segmenter without a reconstructor",
            got=f"segmenter.inputs {list(run.segmenter.inputs)}",
            mend="give --reconstructor, or set segmenter.inputs to [image]",
        )
    if run.training_levels == "all" and not segmenter.needs_reconstruction:
        where, mend = f"segmenter.inputs {list(run.segmenter.inputs)}", "leave training_levels out"
        raise ConfigError("levels for a segmenter that sees no reconstruction", where=where, mend=mend)
    if parent is not None:
        load_weights(parent.folder, segmenter)
    frozen = load_reconstructor(stage1).eval().requires_grad_(False) if stage1 is not None else None
    if isinstance(frozen, FeatureReconstructor) and segmenter.needs_reconstruction:
        raise ConfigError(
            "segmenter of reconstructions beside a reconstructor that has no image",
            got=f"segmenter.inputs {list(run.segmenter.inputs)} and {frozen.config.name!r}",
            mend="set segmenter.inputs to [image]",
        )
    _check_residual(run, frozen)
    if run.mirror and (unturned := [bundle for bundle in (stage1, parent) if bundle is not None and _unturned(bundle)]):
        where = " and ".join(str(bundle.folder) for bundle in unturned)
        log.warning(
            "mirrored slices will be judged by networks that learnt from none: mirror is true, and augmentation.flip "
            "was 0 in %s; set mirror to false, or train with flips.",
            where,
        )
    return _fit(
        run,
        anatomy,
        cohort,
        Place(Path(out), device, Path(cache) if cache is not None else None, overwrite, data_licence),
        task=SegmentationTask(run, segmenter, frozen),
        reconstructor=frozen,
        segmenter=segmenter,
        parents=tuple(bundle for bundle in (parent, stage1) if bundle is not None),
        stage1=stage1,
        limit=limit,
    )


def _fit(
    run: ReconstructorRun | DetectorRun,
    anatomy: Anatomy,
    cohort: str | Path,
    place: Place,
    *,
    task: Task,
    reconstructor: Reconstructor | None,
    segmenter: Segmenter | None = None,
    parents: tuple[Bundle, ...] = (),
    stage1: Bundle | None = None,
    limit: int | None = None,
) -> Bundle:
    """What both stages do around their networks: find the work, prepare, train, describe, write the bundle.

    The segmenter is trained and its reconstructor frozen; without a segmenter the reconstructor is trained.
    """
    generation = 1 + max((parent.generation for parent in parents if parent.kind == run.kind), default=0)
    if run.train.steps == 0 and generation == 1:
        raise ConfigError("no training at all", got="train.steps 0", expected="1 or more, or a detector as --init")
    cases = training_cases(cohort)
    pretrained = reconstructor.pretrained if segmenter is None and reconstructor is not None else None
    request = _request(run, anatomy, cases, parents, limit, pretrained)
    workshop = Workshop(place.out, request, overwrite=place.overwrite)
    if (finished := workshop.finished) is not None:
        return finished
    device = resolve_device(place.device)
    # Weights that are kept give the maps that they gave: in the same precision, of the same noise.
    kept = parents[0].record if run.train.steps == 0 else {}
    precision: Precision = kept.get("precision") or resolve_precision(run.train.precision, device)
    seed = int(kept.get("seed", run.seed))
    direction = str(parents[0].record["direction"]) if parents else None
    cache = place.cache or workshop.prepared
    data = prepare_training_data(cases, anatomy, cache, direction)
    labelled = labelled_cases(data, limit, run.seed) if run.mix.labelled > 0 else ()
    health = [case.health for case in data.cases]
    pool = build_pool(data.prepared, health, lesion_margin_mm=anatomy.lesion_margin_mm, labelled=labelled)
    log.info("brains of heads without a mask: by %s", brain_name(anatomy))
    log.info(
        "training on %s: %d cases, %d healthy slices, %d labelled cases with %d slices, %d steps of %d in %s",
        device,
        len(data.cases),
        len(pool.healthy),
        len(labelled),
        len(pool.labelled),
        run.train.steps,
        run.train.batch,
        precision,
    )
    anomalies = for_contrasts(run.anomalies, anatomy.contrasts)
    for stated, anomaly in zip(run.anomalies, anomalies, strict=True):
        if changes := {key: value for key, value in anomaly if value != getattr(stated, key)}:
            log.info("%s is painted on %s with %s", anomaly.name, ", ".join(anatomy.contrasts), changes)
    stream = SampleStream(
        pool,
        # A training draws other samples than its parent, since the parent has already fitted its samples. The seed goes
        # by the count of generations, so that it is the same wherever the parent was trained.
        seed=rng.fold(run.seed, *[run.kind] * generation),
        batch=run.train.batch,
        steps=run.train.steps,
        mix=run.mix,
        augmentation=run.augmentation,
        anomalies=anomalies,
        target=run.loss.target if isinstance(run, DetectorRun) else "mask",
    )
    inherited = {anomaly.name for parent in parents for anomaly in parent.run.anomalies}
    painted = painted_slices(cohort, run, anatomy, cache, data.direction, pool, inherited)
    log.info("validation on %d painted slices of %s", sum(map(len, painted.batches)), painted.source)
    log.info("unseen: painted by %s", " and ".join(painted.unseen.generators) or "nothing, all are trained with")
    folder = workshop.open()  # now that there is something to learn from: it drops what another request left there

    def detector() -> Detector:
        # Copies, since a detector freezes its parts and these are still being trained.
        return Detector(
            anatomy=anatomy,
            direction=data.direction,
            reconstructor=copy.deepcopy(reconstructor),
            segmenter=copy.deepcopy(segmenter),
            residual=run.residual,
            fusion=run.fusion if isinstance(run, DetectorRun) else None,
            mirror=run.mirror,
            seed=seed,
            precision=usable_precision(precision, device),
            device=device,
        )

    def validate() -> dict[str, float]:
        judged = detector()
        return figures(task, judged, painted.batches) | painted.unseen.figures(judged)

    run_training(
        task,
        stream,
        run.train,
        folder,
        device=device,
        precision=precision,
        draw=lambda path: draw_samples(path, stream, detector()),
        validate=validate,
    )
    if run.train.steps:
        contrasts = contrast_summary(data, anatomy.contrasts, run.augmentation.absent)
    else:  # the weights are those of the parent
        contrasts = parents[0].record["training"].get("contrasts")
    description = Description(
        anatomy=anatomy,
        direction=data.direction,
        precision=precision,
        training=training_summary(data, pool, labelled) | {"contrasts": contrasts},
        identities=(parents[0].used if parents else {}) | dict(data.identities),
        data_licence=place.data_licence,
        generation=generation,
        seed=seed,
    )
    log.info("reference statistics on training slices, distances on %d validation cases", len(painted.cases))
    statistics = reference_statistics(detector(), pool, unseen=painted.cases)
    trained = segmenter or reconstructor
    assert trained is not None  # by the signatures of the two stages
    weights = trained.state_dict()
    return workshop.finish(lambda ready: bundles.save(ready, run, weights, statistics, description, stage1))


def _check_residual(run: ReconstructorRun | DetectorRun, model: Reconstructor | None) -> None:
    """A residual of images is refused where the family has none; the median filter is of every map."""
    stated, default = run.residual or Residual(), Residual()
    if isinstance(model, FeatureReconstructor) and (stated.kind, stated.combine) != (default.kind, default.combine):
        raise ConfigError(
            "residual of images for a reconstructor that has no image",
            got=f"residual {stated.kind}, {stated.combine} and {model.config.name!r}",
            mend="leave residual.kind and residual.combine out, or set them to ssim and arithmetic",
        )


def _unturned(bundle: Bundle) -> bool:
    """Whether the networks of a bundle were trained without a mirrored slice, though those show left and right."""
    run = bundle.run
    return run.train.steps > 0 and run.augmentation.flip == 0 and bundle.record["direction"] in SIDED


def _anatomy(run: DetectorRun, source: Bundle | None, brain: str | None) -> Anatomy:
    if source is not None:
        if run.anatomy is not None:
            raise ConfigError("anatomy stated twice", mend="leave it out: it comes from the bundle that is given")
        return chosen(source.anatomy, brain)
    if run.anatomy is None:
        raise ConfigError(
            "no anatomy", mend="give --reconstructor or --init, or 'anatomy' for a segmenter of the image"
        )
    return chosen_to_fit(run.anatomy, brain)


def _request(
    run: ReconstructorRun | DetectorRun,
    anatomy: Anatomy,
    cases: Sequence[Case],
    parents: Sequence[Bundle],
    limit: int | None,
    pretrained: Path | None,
) -> dict[str, Any]:
    """What identifies a training: the config, the cases with the content of their files, the parents, the limit, what
    outlines brains unless that is our estimate, and the content of the file of weights that the config may name."""
    outliner = {"brain": way} if (way := brain_name(anatomy)) != ESTIMATE else {}
    return (
        outliner
        | ({} if pretrained is None else {"pretrained": file_digest(pretrained)})
        | {
            "config": run.model_dump(mode="json", serialize_as_any=True),
            "cohort": cohort_digest(cases),
            "parents": [parent.digest for parent in parents],
            "limit": limit,
        }
    )
