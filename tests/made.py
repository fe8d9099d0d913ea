"""Made-up results of a benchmark: every system's scores, without a training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hybriduad.benchmark.figures import Entries, Entry
from hybriduad.benchmark.plan import rows_of
from hybriduad.benchmark.results import TestedCase
from hybriduad.config.benchmarks import BenchmarkRun
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.coarse import coarsened

VOXELS = 4_000


def made_benchmark(**changes: Any) -> BenchmarkRun:
    """Five systems on a cohort in two folds; none is ever trained."""
    stage1, stage2, few = ({"config": name} for name in ("cddpm-small", "synthetic", "few-labels"))
    both = {"reconstructor": stage1, "detector": [stage2]}
    content = {
        "kind": "benchmark",
        "cohorts": {"a": {}},
        "tables": {"a": ["a"]},
        "folds": 2,
        "reference": "fused",
        "systems": {
            "intensity": {"reconstructor": stage1, "part": "intensity"},
            "map": {"reconstructor": stage1, "part": "map"},
            "fused": both,
            "labels": both | {"detector": [stage2, few]},
            "2 labels": both | {"detector": [stage2, few | {"limit": 2}]},
        },
    }
    return BenchmarkRun.model_validate(content | changes)


def voxels(system: int, fold: int, person: int, *, ill: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth of a case; the later in the config a system stands, the better it is."""
    truth = np.random.default_rng([fold, person]).random(VOXELS) < (0.002 * 2**person if ill else 0.0)
    rng = np.random.default_rng([system, fold, person])
    logit = rng.normal(-3, 1, VOXELS) + (1 + system) * truth
    return (1 / (1 + np.exp(-logit))).astype(np.float32), truth


def made_case(run: BenchmarkRun, system: str, fold: int, person: int) -> TestedCase:
    """A person of a fold: the first two of six are healthy, the others have ever larger lesions."""
    ill = person > 1
    number = list(run.systems).index(system)
    scores, truth = voxels(number, fold, person, ill=ill)
    histogram = ScoreHistogram()
    histogram.add(scores, truth)
    mask = scores >= 0.5
    tp, fp, fn = (mask & truth).sum(), (mask & ~truth).sum(), (~mask & truth).sum()
    figures = {
        "auprc": histogram.average_precision(),
        "best_dice": histogram.best_dice()[0],
        "dice": 2 * tp / (2 * tp + fp + fn) if ill else math.nan,
        "scan_score": float(np.sort(scores)[-5]),
        "hd95": 10.0 - number if ill else math.nan,
        "lesions_hit": 1.0 * ill,
        "components": 2.0,
        "false_components": 1.0,
        "lesions_under_1ml": 4.0 * ill,
        "lesions_hit_under_1ml": 1.0 * ill,
        "components_under_1ml": 2.0,
        "false_components_under_1ml": 1.0,
        "tp": float(tp),
        "fp": float(fp),
        "fn": float(fn),
    }
    facts = {"lesion_ml": float(truth.sum()) / 10, "lesions": 4.0 * ill}
    facts |= {"l1_ratio": 2.5, "ssim_healthy": 0.75, "error_ratio": 1.25}
    part = run.systems[system].part
    who = f"{fold}{person}"
    return TestedCase(("d", who), f"sub-{who}", ill, facts, {part: figures}, (), {}, {part: coarsened(histogram)})


def made_entries(run: BenchmarkRun, people: int = 6) -> Entries:
    """Every trial of a benchmark."""
    return {
        row: [
            Entry(fold, tuple(made_case(run, row.system, fold, person) for person in range(people)))
            for fold in (trial.model.fold for trial in row.trials)
        ]
        for row in rows_of(run)
    }
