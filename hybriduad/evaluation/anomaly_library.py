"""Every anomaly generator on one scan: a contact sheet, and what their lesions are like beside real ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hybriduad.anomalies._base import Donors
from hybriduad.cohort.manifest import read_case
from hybriduad.config import files as configs
from hybriduad.config.runs import Anatomy, Augmentation, Mix
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core import plugins, rng
from hybriduad.core.drawing import slice_grid
from hybriduad.core.errors import ConfigError, DataError, HybridUADError
from hybriduad.core.types import Case, Health
from hybriduad.evaluation.tables import write_table
from hybriduad.evaluation.trait_table import trait_markdown, trait_row
from hybriduad.evaluation.traits import Traits, measure
from hybriduad.scan.grid import SIDED
from hybriduad.scan.preparation import Prepared, prepare
from hybriduad.scan.slices import enough_brain
from hybriduad.scan.volumes import write_atomically
from hybriduad.training.data import training_cases
from hybriduad.training.samples import SampleStream, SlicePool, build_pool, for_contrasts, height_weights, needs_labels

log = logging.getLogger(__name__)

DRAWS = 64
"""Slices that each generator paints, for the table."""
TABLES = {".csv": "contrast,lesions,", ".md": "# Painted lesions"}
"""The files beside the picture, and how they start: another file of that name, such as the cohort, is not replaced."""


@dataclass(frozen=True)
class Shown:
    """A slice with a lesion, or one in which a generator found no place: ``image`` (H, W) in [-1, 1], ``lesion`` (H, W)
    bool, and what the lesion is like, None without one."""

    image: np.ndarray
    lesion: np.ndarray
    traits: Traits | None


def draw_library(
    scan: str | Path,
    out: str | Path,
    *,
    cohort: str | Path | None = None,
    count: int = 4,
    overrides: Sequence[str] = (),
    contrast: str | None = None,
) -> str:
    """Draw what every anomaly generator paints into a scan, and measure it as real lesions are measured.

    Nothing is augmented. All generators paint the same slices, drawn so that every height of the brain comes as often.

    Args:
        scan: an image; every slice counts as lesion-free, but those that a lesion mask in ``cohort`` says are not.
        out: the PNG to write: a row a generator, a pair of pictures a sample; ``.csv`` and ``.md`` go beside it.
        cohort: annotated cases, of a cohort with splits those of "train": its lesions are measured, drawn in the last
            row, and carried over by generators that need labelled slices, which are left out without it.
        count: samples of each generator in the picture, the first of those measured.
        overrides: ``anomalies=[...]``, others than each with its defaults, and ``seed=``.
        contrast: of the scan, where its name does not tell.

    Returns:
        The table, which the ``.md`` holds.

    Raises:
        ConfigError: ``out`` is no .png, other overrides, or no generator that can be drawn.
        DataError: the scan cannot be used, no case of the cohort can, or another file is where a table goes.
    """
    out, (named, seed) = Path(out), _named(overrides)
    if out.suffix.lower() != ".png":
        raise ConfigError("no name of a picture", got=out, expected="a file that ends in .png")
    for path, start in ((out.with_suffix(suffix), start) for suffix, start in TABLES.items()):
        if path.exists() and not path.read_bytes().startswith(start.encode()):
            raise DataError("another file is where a table goes", where=path, mend="choose another --out")
    target = read_case(scan, contrast)
    anatomy = Anatomy(contrasts=tuple(target.images))
    prepared, health = _prepared(target, training_cases(cohort) if cohort else [], anatomy)
    annotated = [index for index, case in enumerate(prepared) if case.has_lesion_mask]
    pool = build_pool(prepared, health, lesion_margin_mm=anatomy.lesion_margin_mm, labelled=annotated)
    if cohort and not pool.labelled:
        expected = f"masks of lesions on {anatomy.contrasts[0]} scans, as in {scan}"
        raise DataError("no labelled slice in the cohort", where=cohort, expected=expected)
    own = tuple(key for key in pool.healthy if key[0] == 0)
    if not own:
        raise DataError("no lesion-free slice to paint into", where=scan, mend="name another scan")
    left_out = [name for name, config in named.items() if needs_labels(config) and not pool.labelled]
    if len(left_out) == len(named):
        raise ConfigError(
            "no anomalies to draw without labelled slices",
            got=left_out,
            mend="name one that needs none, or give annotated cases by --cohort",
        )
    stream = SampleStream(pool, seed=seed, batch=1, steps=1, mix=Mix(), augmentation=Augmentation())
    slices = _heights_alike(SlicePool(prepared[:1], own), seed, DRAWS)
    painted = {
        name: [
            _painted(config, prepared[0], k, rng.numpy_rng(seed, "library", name, draw), stream.donor)
            for draw, k in enumerate(slices)
        ]
        for name, config in zip(named, for_contrasts(named.values(), anatomy.contrasts), strict=True)
        if name not in left_out
    }
    real = [_labelled(prepared[index], k) for index, k in pool.labelled]
    truth = [shown.traits for shown in real if shown.traits is not None]
    rows = [trait_row("real", truth, len(real))] if real else []
    for name, shown in painted.items():
        rows.append(trait_row(name, [one.traits for one in shown if one.traits is not None], DRAWS, truth))
    which = f"each generator paints the same {DRAWS} slices of one scan, all heights as often"
    notes = [f"{anatomy.contrasts[0]}; {which}; nothing is augmented; seed {seed}."]
    if real:
        patients = len({index for index, _ in pool.labelled})
        notes.append(f"Real: all labelled slices, {len(real)} of {patients} cases.")
    if left_out:
        notes.append(f"Left out, as they carry lesions of labelled slices over (--cohort): {', '.join(left_out)}.")
    text = trait_markdown(rows, notes)
    _draw(out, prepared[0], slices[:count], painted, real)
    write_table(out.with_suffix(".csv"), [{"contrast": anatomy.contrasts[0], **row} for row in rows])
    write_atomically(out.with_suffix(".md"), text.encode())
    return text


def _named(overrides: Sequence[str]) -> tuple[dict[str, AnomalyConfig], int]:
    """The generators under their name and what is not their default; the seed."""
    keys = [assignment.partition("=")[0].strip() for assignment in overrides]
    if unknown := [key for key in keys if key not in ("anomalies", "seed")]:
        raise ConfigError("no such setting of all generators", got=unknown, expected="anomalies=[...] or seed=")
    library = [{"name": name} for name in plugins.names("anomalies")]
    data = {"kind": "detector", "anomalies": library, "train": {"steps": 0, "lr": 1.0}}
    run = configs.parse(configs.override(data, list(overrides)), " ".join(f"--set {text}" for text in overrides))
    named = {}
    for config in run.anomalies:
        stated = config.model_dump(mode="json", exclude_defaults=True, exclude={"name", "weight"})
        named[" ".join([config.name, *(f"{key}={value}" for key, value in stated.items())])] = config
    return named, run.seed


def _prepared(target: Case, cases: Sequence[Case], anatomy: Anatomy) -> tuple[list[Prepared], list[Health]]:
    """The scan, with its masks where it is one of the cases, and all other cases of its contrast and direction."""
    ((contrast, path),) = target.images.items()
    same = [case for case in cases if contrast in case.images and case.images[contrast].resolve() == path.resolve()]
    first = same[0] if same else target
    prepared = [prepare(first, anatomy)]
    health: list[Health] = ["lesion" if prepared[0].has_lesion_mask else "healthy"]
    for case in cases:
        if case in same or contrast not in case.images:
            continue
        try:
            prepared.append(prepare(case, anatomy, prepared[0].grid.direction))
        except HybridUADError as error:
            log.warning("%s left out: %s", case.name, error)
            continue
        health.append(case.health)
    return prepared, health


def _heights_alike(pool: SlicePool, seed: int, draws: int) -> list[int]:
    """So many of the healthy slices of one case, all heights as often."""
    weights = height_weights(pool)
    keys = [rng.numpy_rng(seed, "library slice", draw) for draw in range(draws)]
    return [pool.healthy[int(key.choice(len(weights), p=weights))][1] for key in keys]


def _painted(config: AnomalyConfig, case: Prepared, k: int, draw: np.random.Generator, donors: Donors) -> Shown:
    """What a generator makes of a slice."""
    clean = np.array(case.image[..., k])
    brain = np.array(case.brain[..., k] & case.valid[..., k].any(axis=0))
    corrupt = plugins.load("anomalies", config.name).corrupt
    got = corrupt(config, clean, brain, draw, spacing_mm=case.spacing_mm[:2], donors=donors)
    if not got.lesion.any():
        return Shown(got.image[0], got.lesion, None)
    traits = replace(
        _measured(case, k, got.image[0], got.lesion, got.ignore, brain),
        change=float((got.image[0] - clean[0])[got.lesion].mean()),
        visibility=float(got.visibility[got.lesion].mean()),
    )
    return Shown(got.image[0], got.lesion, traits)


def _labelled(case: Prepared, k: int) -> Shown:
    """A labelled slice; the same is measured of it."""
    image, brain = np.array(case.image[0, ..., k]), np.array(case.brain[..., k] & case.valid[0, ..., k])
    lesion, ignore = np.array(case.lesion[..., k] & brain), np.array(case.ignore[..., k])
    traits = _measured(case, k, image, lesion, ignore, brain) if lesion.any() else None
    return Shown(image, lesion, traits)


def _measured(
    case: Prepared, k: int, image: np.ndarray, lesion: np.ndarray, ignore: np.ndarray, brain: np.ndarray
) -> Traits:
    judged = np.flatnonzero(enough_brain(case.brain, case.spacing_mm))
    height = float((k - judged[0]) / max(judged[-1] - judged[0], 1))
    sided = case.grid.direction in SIDED
    return measure(image, lesion, ignore, brain, case.spacing_mm[:2], height=height, sided=sided)


def _draw(
    out: Path, scan: Prepared, slices: Sequence[int], painted: Mapping[str, Sequence[Shown]], real: Sequence[Shown]
) -> None:
    """A row of the scan as it is with its brain, one of each generator, and one of real lesions of all cases."""
    count = len(slices)
    shown = [[(np.array(scan.image[0, ..., k]), np.array(scan.brain[..., k])) for k in slices]]
    shown += [[(one.image, one.lesion) for one in drawn[:count]] for drawn in painted.values()]
    labels = ["scan, brain", *painted]
    if real:
        chosen = np.linspace(0, len(real) - 1, count + 2).round().astype(int)[1:-1]
        shown.append([(real[place].image, real[place].lesion) for place in chosen])
        labels.append("real")
    rows = [[picture for pair in row for picture in pair] for row in shown]
    titles = [title for k in slices for title in (f"slice {k}", "lesion")]
    slice_grid(out, rows, titles, labels=labels)
