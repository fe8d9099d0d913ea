"""What an anomaly generator does to a scan, as a picture: the first thing to look at before training on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybriduad.cohort.manifest import read_case
from hybriduad.config.runs import Anatomy, Mix
from hybriduad.core.drawing import slice_grid
from hybriduad.core.errors import ConfigError
from hybriduad.scan.preparation import prepare
from hybriduad.training.painting import run_with_anomalies
from hybriduad.training.samples import SampleStream, build_pool, for_contrasts

TITLES = ("image", "with anomaly", "lesion")


def draw_anomalies(
    config: str | Path,
    scan: str | Path,
    out: str | Path,
    *,
    count: int = 8,
    overrides: Sequence[str] = (),
    contrast: str | None = None,
) -> Path:
    """Draw synthetic samples of a scan's slices, augmented and painted as a training with ``config`` sees them.

    Args:
        config: path or name of a shipped run config; its ``anomalies``, ``augmentation``, ``seed`` and, where stated,
            ``anatomy`` are used. Generators that carry lesions of labelled slices are left out: a scan has no labels.
        scan: an image, every slice of which counts as lesion-free here.
        out: the PNG to write; a row a sample: the slice, the slice with its anomaly, the mask of the lesion.
        count: rows; row i is the same picture whatever their number.
        overrides: ``dotted.key=value``.
        contrast: of the scan, where its name does not tell.

    Raises:
        ConfigError: an unusable config, or a config without anomalies.
        DataError: the scan cannot be used.
    """
    run, anomalies = run_with_anomalies(config, overrides)
    if count < 1:
        raise ConfigError("nothing to draw", got=count, expected="a count of at least 1")
    case = read_case(scan, contrast)
    anatomy = run.anatomy or Anatomy(contrasts=tuple(case.images))
    pool = build_pool([prepare(case, anatomy)], ["healthy"], lesion_margin_mm=anatomy.lesion_margin_mm)
    stream = SampleStream(
        pool,
        seed=run.seed,
        batch=count,
        steps=1,
        mix=Mix(healthy=0.0, synthetic=1.0),
        augmentation=run.augmentation,
        anomalies=for_contrasts(anomalies, anatomy.contrasts),
    )
    drawn = stream.samples(0, count)
    shown = [int(drawn.present[0].int().argmax())] * count
    columns: list[Any] = [
        [drawn.healthy[row, index].numpy() for row, index in enumerate(shown)],
        [drawn.image[row, index].numpy() for row, index in enumerate(shown)],
        [np.asarray(lesion) for lesion in drawn.lesion],
    ]
    labels = [f"slice {int(index)}" for index in drawn.slice_index]
    slice_grid(Path(out), list(zip(*columns, strict=True)), TITLES, labels=labels)
    return Path(out)
