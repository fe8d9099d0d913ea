"""The slices that a training shows figures of, and the figures."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tiny import ANATOMY, DETECTOR, RECONSTRUCTOR, generators, prepared_cases

from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.config import files as configs
from hybriduad.core.types import Batch, Split
from hybriduad.detector.loading import load_detector
from hybriduad.training.samples import SampleStream, SlicePool, build_pool
from hybriduad.training.validation import AUPRC, PaintedSlices, figures, painted_slices


@pytest.fixture(scope="module")
def pool(tiny_cohort: Path) -> SlicePool:
    return build_pool(prepared_cases(tiny_cohort), ["lesion", "lesion", "healthy"], lesion_margin_mm=10.0)


def painted(cohort: Path, folder: Path, pool: SlicePool, run: dict[str, Any]) -> PaintedSlices:
    return painted_slices(cohort, configs.parse(run, "tests"), ANATOMY, folder / "cache", "axial", pool)


def with_splits(cohort: Path, path: Path, **splits: Split) -> Path:
    cases = [replace(case, split=splits[f"s{case.subject}"]) for case in read_cohort(cohort)]
    write_manifest(cases, path)
    return path


@pytest.mark.parametrize("run", [RECONSTRUCTOR, DETECTOR])
def test_painted_slices_of_validation_cases(
    run: dict[str, Any], tiny_cohort: Path, tmp_path: Path, pool: SlicePool
) -> None:
    """A few dozen, whole as they are but for what was painted; a config without anomalies gets the paper's."""
    cohort = with_splits(tiny_cohort, tmp_path / "c.csv", s01="train", s02="validation", s03="validation")
    before = generators()
    slices = painted(cohort, tmp_path, pool, run)
    assert generators() == before
    assert slices.source == "2 of 2 validation cases"
    together = Batch.stack(list(slices.batches))
    assert len(together) == 32
    change = (together.image - together.healthy).abs().amax(dim=1)
    assert (change[~(together.lesion | together.ignore)] < 1e-6).all()
    assert float((together.lesion.flatten(1).sum(dim=1) > 0).float().mean()) > 0.8
    mine = [prepared_cases(cohort)[number] for number in (1, 2)]
    clean = {case.image[..., index].tobytes() for case in mine for index in range(case.image.shape[-1])}
    assert {np.ascontiguousarray(image).tobytes() for image in together.healthy.numpy()} <= clean
    again = painted(cohort, tmp_path, pool, run)
    assert all(torch.equal(a.image, b.image) for a, b in zip(slices.batches, again.batches, strict=True))


def test_without_a_usable_validation_case_they_are_training_slices_under_other_keys(
    tiny_cohort: Path, tmp_path: Path, pool: SlicePool, caplog: pytest.LogCaptureFixture
) -> None:
    cohort = with_splits(tiny_cohort, tmp_path / "c.csv", s01="validation", s02="train", s03="train")
    cases = read_cohort(cohort)
    (tmp_path / "broken_FLAIR.nii.gz").write_bytes(b"no image")
    cases[0] = replace(cases[0], images={"FLAIR": tmp_path / "broken_FLAIR.nii.gz"})
    write_manifest(cases, cohort)
    with caplog.at_level(logging.WARNING):
        slices = painted(cohort, tmp_path, pool, DETECTOR)
    assert slices.source == "training cases, as none of 1 validation cases can be used"
    assert "sub-01 left out of the validation" in caplog.text
    run = configs.parse(DETECTOR, "tests")
    keys = {int(key) for batch in slices.batches for key in batch.keys}
    stream = SampleStream(
        pool,
        seed=run.seed,
        batch=16,
        steps=20,
        mix=run.mix,
        augmentation=run.augmentation,
        anomalies=run.anomalies,
    )
    assert not keys & {int(key) for step in range(20) for key in stream[step].keys}


def test_what_carries_annotated_lesions_is_not_painted(tiny_cohort: Path, tmp_path: Path, pool: SlicePool) -> None:
    both = {**DETECTOR, "anomalies": [{"name": "transplant"}, {"name": "perlin"}]}
    without_labels = painted(tiny_cohort, tmp_path, pool, both).batches[0]
    perlin_alone = painted(tiny_cohort, tmp_path, pool, DETECTOR).batches[0]
    assert torch.equal(without_labels.image, perlin_alone.image)


def test_a_soft_target_is_that_of_the_loss_and_the_mask_that_of_the_auprc(
    tiny_cohort: Path, tmp_path: Path, pool: SlicePool
) -> None:
    hard = {**DETECTOR, "anomalies": [{"name": "poisson"}]}
    masks, soft = (
        Batch.stack(list(painted(tiny_cohort, tmp_path, pool, run).batches))
        for run in (hard, {**hard, "loss": {"target": "visibility"}})
    )
    assert torch.equal(masks.image, soft.image)
    assert torch.equal(masks.lesion, soft.lesion)
    assert torch.equal(masks.target, masks.lesion.float())
    inside = soft.target[soft.lesion]
    assert 0.3 <= float(inside.min()) < float(inside.max()) < 1


def test_the_auprc_is_that_of_the_voxels_in_the_brain(tiny_detector: Path, tiny_cohort: Path, pool: SlicePool) -> None:
    batches = painted(tiny_cohort, tiny_cohort.parent, pool, DETECTOR).batches
    batches[0].ignore[:, :16] = True
    detector = load_detector(tiny_detector, "cpu")
    counts = iter((1.0, 2.0))
    task: Any = SimpleNamespace(losses=lambda batch: {"loss": torch.tensor(next(counts))})
    values_by_name = figures(task, detector, batches)
    scores, truth = [], []
    for batch in batches:
        values = detector.slice_maps(batch).probability
        assert values is not None
        inside = batch.brain & ~batch.ignore
        scores.append(values[inside].numpy())
        truth.append(batch.lesion[inside].numpy())
    expected = average_precision_score(np.concatenate(truth), np.concatenate(scores))
    assert values_by_name == {"validation_loss": 1.5, AUPRC: pytest.approx(expected, abs=1e-3)}
