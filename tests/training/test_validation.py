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
from hybriduad.config.runs import Fusion
from hybriduad.core import plugins
from hybriduad.core.types import Batch, Split
from hybriduad.detector.loading import load_detector
from hybriduad.networks.scoring import fuse, median_filter_volume
from hybriduad.training.samples import SampleStream, SlicePool, build_pool, needs_labels
from hybriduad.training.unseen import HELD_OUT, UNSEEN, UNSEEN_MAP, UNSEEN_SCORE, UnseenSlices, held_out
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
    keys = {int(key) for batch in (*slices.batches, *slices.unseen.batches) for key in batch.keys}
    assert len(keys) == 64  # those of the unseen slices are others again
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


def test_what_is_painted_looks_as_it_does_on_these_contrasts(tiny_cohort: Path, tmp_path: Path) -> None:
    """Cavities are full of fluid, which is bright on T2w; a lesion is bright there and dark on T1w."""
    cases = read_cohort(tiny_cohort)
    anatomy = ANATOMY.model_copy(update={"contrasts": ("T2w", "T1w")})
    cases = [replace(case, images={"T2w": case.images["FLAIR"], "T1w": case.images["T1w"]}) for case in cases]
    write_manifest(cases, tmp_path / "c.csv")
    pool = build_pool(prepared_cases(tmp_path / "c.csv", anatomy), ["lesion", "lesion", "healthy"], lesion_margin_mm=10)
    run = configs.parse({**DETECTOR, "anomalies": [{"name": "lesion", "bright": 1.0, "core": 0.0}]}, "tests")
    others = {"intensity-bias", "smooth-intensity", "coarse-noise"}
    slices = painted_slices(tmp_path / "c.csv", run, anatomy, tmp_path / "cache", "axial", pool, others)
    assert slices.unseen.generators == ("atrophy-cavity",)
    lesions, cavities = (Batch.stack(list(batches)) for batches in (slices.batches, slices.unseen.batches))
    t2w, t1w = ((lesions.image - lesions.healthy)[:, contrast][lesions.lesion].mean() for contrast in (0, 1))
    assert t2w > 0.1
    assert t1w < -0.1
    assert (cavities.image - cavities.healthy)[:, 0][cavities.lesion].mean() > 0.1


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


class TestUnseen:
    """Slices of the same cases painted by generators that the training does not use."""

    def test_of_each_kind_the_first_that_is_not_trained(self) -> None:
        replacing, changing = HELD_OUT
        assert [config.name for config in held_out(())] == [replacing[0], changing[0]]
        assert [config.name for config in held_out({"perlin", replacing[0]})] == [replacing[2], changing[0]]
        assert [config.name for config in held_out(set(changing))] == [replacing[0]]
        assert held_out({*replacing, *changing}) == []
        assert not [
            name for kind in HELD_OUT for name in kind if needs_labels(plugins.load("anomalies", name).Config())
        ]

    @pytest.mark.parametrize("run", [RECONSTRUCTOR, DETECTOR])
    def test_both_stages_have_them_whole_but_for_what_is_painted(
        self, run: dict[str, Any], tiny_cohort: Path, tmp_path: Path, pool: SlicePool
    ) -> None:
        cohort = with_splits(tiny_cohort, tmp_path / "c.csv", s01="train", s02="validation", s03="validation")
        slices = painted(cohort, tmp_path, pool, run)
        assert slices.unseen.generators == ("atrophy-cavity", "intensity-bias")
        together = Batch.stack(list(slices.unseen.batches))
        assert len(together) == 32
        change = (together.image - together.healthy).abs().amax(dim=1)
        assert (change[~(together.lesion | together.ignore)] < 1e-6).all()
        assert float((together.lesion.flatten(1).sum(dim=1) > 0).float().mean()) > 0.8
        assert float(change[together.lesion].mean()) > 0.2
        assert set(together.case_index.tolist()) == {0, 1}

    def test_what_the_training_or_its_parents_paint_is_seen(
        self, tiny_cohort: Path, tmp_path: Path, pool: SlicePool
    ) -> None:
        run = configs.parse({**DETECTOR, "anomalies": [{"name": "intensity-bias"}]}, "tests")
        place = (ANATOMY, tmp_path / "cache", "axial", pool)
        slices = painted_slices(tiny_cohort, run, *place, inherited={"atrophy-cavity", "lesion"})
        assert slices.unseen.generators == ("perlin", "smooth-intensity")
        every = [{"name": name} for kind in HELD_OUT for name in kind]
        nothing = painted_slices(tiny_cohort, configs.parse({**DETECTOR, "anomalies": every}, "tests"), *place).unseen
        assert (nothing.batches, nothing.generators) == ((), ())

    def test_map_and_score_of_lone_slices_beside_the_probability(
        self, tiny_detector: Path, tiny_cohort: Path, pool: SlicePool
    ) -> None:
        unseen = painted(tiny_cohort, tiny_cohort.parent, pool, DETECTOR).unseen
        detector = load_detector(tiny_detector, "cpu")
        parts: dict[str, list[np.ndarray]] = {UNSEEN: [], UNSEEN_MAP: [], UNSEEN_SCORE: []}
        truth = []
        for batch in unseen.batches:
            maps = detector.slice_maps(batch)
            for row in range(len(batch)):
                inside = (batch.brain & ~batch.ignore)[row].numpy()
                assert maps.map is not None
                assert maps.probability is not None
                brain, spacing = batch.brain[row].numpy(), batch.spacing_mm[row].tolist()
                plain = maps.map[row].numpy()
                filtered = median_filter_volume(plain, spacing, brain, 11.5)  # in the plane alone, two-dimensional
                probability = maps.probability[row].numpy()
                parts[UNSEEN].append(probability[inside])
                parts[UNSEEN_MAP].append(filtered[inside])
                parts[UNSEEN_SCORE].append(fuse(filtered, probability, "sum", 1.0)[inside])
                truth.append(batch.lesion[row].numpy()[inside])
        expected = {
            name: pytest.approx(average_precision_score(np.concatenate(truth), np.concatenate(values)), abs=1e-3)
            for name, values in parts.items()
        }
        assert unseen.figures(detector) == expected
        assert unseen.figures(detector) == expected
        assert len({round(value, 4) for value in unseen.figures(detector).values()}) == 3

    def test_forms_of_fusion_differ_in_the_score_alone(
        self, tiny_detector: Path, tiny_cohort: Path, pool: SlicePool
    ) -> None:
        detector = load_detector(tiny_detector, "cpu")
        found = []
        for exponents in ({}, {"intensity": 1.0}, {"intensity": 1.0, "opposite": 4.0}, {"asymmetry": 1.0}):
            detector.fusion = Fusion(form="product", floor=0.05, **exponents)
            found.append(painted(tiny_cohort, tiny_cohort.parent, pool, DETECTOR).unseen.figures(detector))
        assert len({entry[UNSEEN_SCORE] for entry in found}) == 4
        assert len({(entry[UNSEEN], entry[UNSEEN_MAP]) for entry in found}) == 1

    def test_a_slice_that_no_contrast_covers_scores_0(
        self, tiny_detector: Path, tiny_cohort: Path, pool: SlicePool
    ) -> None:
        (batch, _) = painted(tiny_cohort, tiny_cohort.parent, pool, DETECTOR).unseen.batches
        batch.valid[0] = False
        detector = load_detector(tiny_detector, "cpu")
        detector.fusion = Fusion(form="product", intensity=1.0, asymmetry=1.0)
        assert 0 < UnseenSlices([batch], ["some"]).figures(detector)[UNSEEN_SCORE] < 1

    def test_without_a_segmenter_it_is_that_of_the_map_and_without_slices_there_is_none(
        self, tiny_reconstructor: Path, tiny_cohort: Path, pool: SlicePool
    ) -> None:
        unseen = painted(tiny_cohort, tiny_cohort.parent, pool, RECONSTRUCTOR).unseen
        detector = load_detector(tiny_reconstructor, "cpu")
        task: Any = SimpleNamespace(losses=lambda _: {"loss": torch.tensor(1.0)})
        assert unseen.figures(detector) == {UNSEEN: figures(task, detector, unseen.batches)[AUPRC]}
        assert UnseenSlices([], []).figures(detector) == {}
