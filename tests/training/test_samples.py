"""Slices: which serve as healthy, that a sample is a pure function, and that every kind gives the same Batch."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ANATOMY, generators, prepared_cases, write_nifti
from torch.utils.data import DataLoader

from hybriduad.anomalies._base import VISIBLE_CHANGE, Donor, with_extent
from hybriduad.cohort.manifest import read_cohort, write_manifest
from hybriduad.config import files as configs
from hybriduad.config.runs import Augmentation, Mix
from hybriduad.config.strict import AnomalyConfig
from hybriduad.core import plugins
from hybriduad.core.errors import DataError
from hybriduad.core.rng import numpy_rng, slice_key
from hybriduad.core.types import BACKGROUND, Batch, Case, Corruption
from hybriduad.scan.cache import PreparedCache
from hybriduad.scan.preparation import Prepared
from hybriduad.scan.slices import SMALLEST_BRAIN_MM2, enough_brain, slices_of
from hybriduad.training.data import (
    TrainingData,
    labelled_cases,
    prepare_training_data,
    training_cases,
    training_summary,
    usual_direction,
)
from hybriduad.training.samples import (
    RemainingSteps,
    SampleStream,
    SlicePool,
    build_pool,
    for_contrasts,
    height_weights,
)

HEALTH = ("lesion", "lesion", "healthy")
STILL = Augmentation(**dict.fromkeys(Augmentation.model_fields, 0.0))


@pytest.fixture(scope="module")
def prepared(tiny_cohort: Path) -> list[Prepared]:
    return prepared_cases(tiny_cohort)


def anomaly(name: str = "lesion") -> AnomalyConfig:
    config: AnomalyConfig = plugins.load("anomalies", name).Config(name=name)
    return config


def stream(pool: SlicePool, mix: Mix, **changes: Any) -> SampleStream:
    settings: dict[str, Any] = {"seed": 3, "batch": 4, "steps": 10, "augmentation": Augmentation()}
    settings["anomalies"] = (anomaly(),)
    return SampleStream(pool, mix=mix, **{**settings, **changes})


def assert_same(first: Batch, second: Batch) -> None:
    for entry in fields(Batch):
        assert torch.equal(getattr(first, entry.name), getattr(second, entry.name)), entry.name


class TestPool:
    def test_healthy_slices_keep_their_distance_from_every_lesion(self, prepared: list[Prepared]) -> None:
        for margin_mm in (0.0, 8.0, 20.0):
            pool = build_pool(prepared, HEALTH, lesion_margin_mm=margin_mm)
            assert {case for case, _ in pool.healthy} == {0, 1, 2}
            for case, k in pool.healthy:
                lesions = np.flatnonzero(prepared[case].lesion.any(axis=(0, 1)))
                # At least the neighbouring slice, in which the lesion may begin.
                least = max(1, int(np.ceil(margin_mm / prepared[case].spacing_mm[2])))
                assert not len(lesions) or np.abs(lesions - k).min() > least
        assert len(build_pool(prepared, HEALTH, lesion_margin_mm=0.0).healthy) > len(pool.healthy)

    def test_healthy_slices_show_brain(self, prepared: list[Prepared]) -> None:
        pool = build_pool(prepared, HEALTH, lesion_margin_mm=8.0)
        spacing = prepared[2].spacing_mm
        for case, k in pool.healthy:
            assert prepared[case].brain[..., k].sum() * spacing[0] * spacing[1] >= SMALLEST_BRAIN_MM2 * 0.9

    def test_unknown_health_without_a_mask_gives_no_healthy_slice(self, prepared: list[Prepared]) -> None:
        unknown = replace(prepared[2], has_lesion_mask=False)
        pool = build_pool([prepared[0], unknown], ["lesion", "unknown"], lesion_margin_mm=8.0)
        assert {case for case, _ in pool.healthy} == {0}
        with pytest.raises(DataError, match="no healthy slice"):
            build_pool([unknown], ["unknown"], lesion_margin_mm=8.0)
        with pytest.raises(DataError, match="no healthy slice"):
            build_pool([unknown], ["lesion"], lesion_margin_mm=8.0)
        assert build_pool([unknown], ["healthy"], lesion_margin_mm=8.0).healthy

    def test_ignored_tissue_is_not_healthy(self, prepared: list[Prepared]) -> None:
        ignore = np.zeros_like(prepared[2].ignore)
        ignore[16, 16, 10] = True
        pool = build_pool([replace(prepared[2], ignore=ignore)], ["healthy"], lesion_margin_mm=8.0)
        assert not {9, 10, 11} & {k for _, k in pool.healthy}

    def test_labelled_slices_are_those_of_the_labelled_cases(self, prepared: list[Prepared]) -> None:
        pool = build_pool(prepared, HEALTH, lesion_margin_mm=8.0, labelled=[1])
        assert {case for case, _ in pool.labelled} == {1}
        assert all(prepared[1].lesion[..., k].any() for _, k in pool.labelled)
        assert not build_pool(prepared, HEALTH, lesion_margin_mm=8.0).labelled
        with pytest.raises(DataError, match="without a lesion mask"):
            build_pool(
                [replace(prepared[0], has_lesion_mask=False), prepared[2]],
                HEALTH[1:],
                lesion_margin_mm=8.0,
                labelled=[0],
            )

    def test_a_slice_that_is_not_judged_is_no_labelled_slice(self, prepared: list[Prepared]) -> None:
        pool = build_pool(prepared, HEALTH, lesion_margin_mm=8.0, labelled=[1])
        _, k = pool.labelled[0]
        brain = np.array(prepared[1].brain)
        brain[..., k] = prepared[1].lesion[..., k]  # all of it lesion, and too little to be judged
        shrunk = [prepared[0], replace(prepared[1], brain=brain), prepared[2]]
        assert not enough_brain(brain, prepared[1].spacing_mm)[k]
        again = build_pool(shrunk, HEALTH, lesion_margin_mm=8.0, labelled=[1])
        assert again.labelled == tuple(place for place in pool.labelled if place != (1, k))


class TestStream:
    MIX = Mix(healthy=1.0, synthetic=1.0, labelled=1.0)

    @pytest.fixture(scope="class")
    def pool(self, prepared: list[Prepared]) -> SlicePool:
        return build_pool(prepared, HEALTH, lesion_margin_mm=8.0, labelled=[0, 1])

    def test_a_sample_is_a_pure_function_of_seed_step_and_index(self, pool: SlicePool) -> None:
        shorter, before = stream(pool, self.MIX), generators()
        steps = [shorter[step] for step in (0, 1, 2, 3)]
        assert generators() == before
        np.random.seed(1)  # noqa: NPY002 - no sample may care
        longer = stream(pool, self.MIX, steps=99)
        for step in (3, 1, 0, 2):
            assert_same(longer[step], steps[step])
        assert_same(longer.samples(2, 2), Batch.stack([longer.sample(2, 0), longer.sample(2, 1)]))
        assert not torch.equal(steps[0].image, steps[1].image)
        assert not torch.equal(stream(pool, self.MIX, seed=4)[0].image, steps[0].image)
        keys = torch.cat([batch.keys for batch in steps])
        assert len(set(keys.tolist())) == len(keys)

    def test_workers_and_a_restart_change_nothing(self, pool: SlicePool) -> None:
        whole = stream(pool, self.MIX, steps=5)
        loader = DataLoader(whole, batch_size=None, sampler=RemainingSteps(2, 5), num_workers=2)
        batches = list(loader)
        assert len(batches) == 3
        for step, batch in zip((2, 3, 4), batches, strict=True):
            assert_same(batch, whole[step])

    @pytest.mark.parametrize("kind", ["healthy", "synthetic", "labelled"])
    def test_every_kind_of_slice_gives_the_same_batch(self, pool: SlicePool, kind: str) -> None:
        batch = stream(pool, Mix(**{**dict.fromkeys(Mix.model_fields, 0.0), kind: 1.0}), batch=12)[0]
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("image", "healthy", "valid"), (12, 1, 32, 32))
        shapes |= dict.fromkeys(("brain", "lesion", "ignore", "target"), (12, 32, 32))
        shapes |= {"spacing_mm": (12, 2)}
        shapes |= dict.fromkeys(("keys", "case_index", "slice_index"), (12,))
        assert {entry.name: tuple(getattr(batch, entry.name).shape) for entry in fields(Batch)} == shapes
        for name in ("image", "healthy", "target", "spacing_mm"):
            assert getattr(batch, name).dtype == torch.float32, name
        for name in ("present", "brain", "lesion", "ignore"):
            assert getattr(batch, name).dtype == torch.bool, name
        for image in (batch.image, batch.healthy):
            assert float(image.min()) >= BACKGROUND
            assert float(image.max()) <= 1
        assert not (batch.target > 0)[~batch.brain].any()
        assert torch.equal(batch.target > 0, batch.lesion)
        changed = (batch.image != batch.healthy).any(dim=1)
        if kind == "synthetic":
            assert float((batch.lesion.flatten(1).any(dim=1)).float().mean()) >= 0.75
            assert not changed[~(batch.lesion | batch.ignore)].any()
        else:
            assert not changed.any()
            assert bool(batch.lesion.any()) == (kind == "labelled")

    def test_the_shares_are_those_of_the_mix(self, pool: SlicePool) -> None:
        batch = stream(pool, Mix(healthy=2.0, synthetic=0.0, labelled=1.0), batch=150, augmentation=STILL)[0]
        assert float(batch.lesion.flatten(1).any(dim=1).float().mean()) == pytest.approx(1 / 3, abs=0.12)

    def test_every_height_of_the_brain_is_drawn_as_often_as_it_is_judged(self, prepared: list[Prepared]) -> None:
        case = prepared[2]
        judged = np.flatnonzero(enough_brain(case.brain, case.spacing_mm))
        lesion = np.zeros_like(case.lesion)
        lesion[16, 16, judged[len(judged) // 2] :] = True
        sick = replace(case, lesion=lesion, has_lesion_mask=True)
        pool = build_pool([sick, sick, sick, case], ["lesion"] * 3 + ["healthy"], lesion_margin_mm=0.0)
        drawn = stream(pool, Mix(), batch=1000, augmentation=STILL)[0].slice_index.numpy()
        middle = judged[len(judged) // 2]
        assert np.mean([k >= middle for _, k in pool.healthy]) < 0.3
        assert np.mean(drawn >= middle) == pytest.approx(np.mean(judged >= middle), abs=0.05)
        healthy = height_weights(build_pool(prepared[2:], HEALTH[2:], lesion_margin_mm=8.0))
        np.testing.assert_allclose(healthy, 1 / len(healthy))

    def test_a_labelled_lesion_outside_the_brain_is_no_target(self, prepared: list[Prepared]) -> None:
        spilled = replace(prepared[0], lesion=prepared[0].lesion | np.roll(prepared[0].lesion, 9, axis=0))
        pool = build_pool([spilled, prepared[2]], ["lesion", "healthy"], lesion_margin_mm=8.0, labelled=[0])
        batch = stream(pool, Mix(healthy=0.0, labelled=1.0), batch=20)[0]
        assert batch.lesion.any()
        assert not (batch.target > 0)[~batch.brain].any()

    def test_the_prepared_cases_are_never_written_to(self, prepared: list[Prepared], pool: SlicePool) -> None:
        before = [case.image.copy() for case in prepared]
        stream(pool, self.MIX, batch=20)[0].image.fill_(0.0)
        assert all(np.array_equal(case.image, kept) for case, kept in zip(prepared, before, strict=True))

    def test_a_contrast_that_a_sample_lacks_is_background_and_not_present(self, prepared: list[Prepared]) -> None:
        two = {name: np.concatenate([getattr(prepared[2], name)] * 2) for name in ("image", "valid")}
        both = replace(prepared[2], **two)
        pool = build_pool([both], ["healthy"], lesion_margin_mm=8.0)
        never, often = ({**STILL.model_dump(), "absent": chance} for chance in (0.0, 0.5))
        assert stream(pool, Mix(), batch=20, augmentation=Augmentation(**never))[0].present.all()
        batch = stream(pool, Mix(synthetic=1.0), batch=40, augmentation=Augmentation(**often))[0]
        assert 10 < int(batch.present.all(dim=1).sum()) < 30
        assert batch.present.any(dim=1).all()
        assert bool((batch.image[~batch.present] == BACKGROUND).all())

    def test_what_no_contrast_covers_is_neither_painted_nor_learnt(self, prepared: list[Prepared]) -> None:
        def partly(case: Prepared, *covered: slice) -> Prepared:
            valid = np.zeros((2, *case.brain.shape), bool)
            for index, rows in enumerate(covered):
                valid[index, rows] = True
            image = np.where(valid, np.concatenate([case.image, case.image]), np.float32(BACKGROUND))
            return replace(case, image=image, valid=valid)

        everything = Augmentation(**{**dict.fromkeys(Augmentation.model_fields, 0.5), "absent": 0.2})
        cases = [partly(case, slice(0, 18), slice(14, 24)) for case in prepared]
        pool = build_pool(cases, HEALTH, lesion_margin_mm=8.0, labelled=[0, 1])
        batch = stream(pool, self.MIX, batch=40, augmentation=everything)[0]
        shown = batch.valid.any(dim=1)
        unseen = batch.brain & ~shown
        assert unseen.sum() > 1000
        assert batch.ignore[unseen].all()
        assert not batch.lesion[~shown].any()
        assert bool((batch.image[~batch.valid] == BACKGROUND).all())
        assert bool((batch.healthy[~batch.valid] == BACKGROUND).all())
        painted = (batch.image != batch.healthy).any(dim=1)
        assert painted.sum() > 100
        # Every lesion voxel that was painted shows in some contrast that covers it.
        synthetic = painted.flatten(1).any(dim=1)
        assert painted[synthetic][batch.lesion[synthetic]].all()
        donors = [stream(pool, self.MIX).donor(numpy_rng(1, key), labelled=True).lesion.any() for key in range(20)]
        assert not any(donors)  # nowhere does each contrast cover the whole of a brain
        whole = build_pool(
            [partly(case, slice(None), slice(None)) for case in prepared], HEALTH, lesion_margin_mm=8.0, labelled=[0, 1]
        )
        assert all(stream(whole, self.MIX).donor(numpy_rng(1, key), labelled=True).lesion.any() for key in range(20))

    @pytest.mark.parametrize(("axis", "sided"), [(0, False), (1, True), (2, True)])  # sagittal, coronal, axial
    def test_slices_and_donors_are_mirrored_where_they_show_left_and_right(
        self, prepared: list[Prepared], axis: int, sided: bool
    ) -> None:
        turned = [replace(case, grid=replace(case.grid, slice_axis=axis)) for case in prepared]
        pool = build_pool(turned, HEALTH, lesion_margin_mm=8.0, labelled=[0, 1])
        always = Augmentation(**{**STILL.model_dump(), "flip": 1.0})
        flipped = stream(pool, Mix(), augmentation=always)
        for index in range(4):
            sample = flipped.sample(0, index)
            case, place = int(sample.case_index), int(sample.slice_index)
            whole = prepared[case].image[..., place]
            np.testing.assert_array_equal(sample.image[0].numpy(), whole[:, ::-1] if sided else whole)
        labelled = {prepared[case].lesion[..., place].tobytes() for case, place in pool.labelled}
        donors = [flipped.donor(numpy_rng(0, key), labelled=True) for key in range(30)]
        kept = [donor.lesion.tobytes() in labelled for donor in donors]
        backwards = [np.ascontiguousarray(donor.lesion[::-1]).tobytes() in labelled for donor in donors]
        assert any(kept)
        assert all(kept) != sided
        assert any(backwards) == sided
        for donor in donors:
            assert (donor.image[0][donor.brain] > BACKGROUND).mean() > 0.9  # mirrored together
            assert donor.brain[donor.lesion].mean() > 0.9
            assert donor.spacing_mm in {prepared[case].spacing_mm[:2] for case in (0, 1)}

    def test_healthy_donors_stand_beside_labelled_donors(self, prepared: list[Prepared], pool: SlicePool) -> None:
        for key in range(20):
            healthy = stream(pool, self.MIX).donor(numpy_rng(1, key), labelled=False)
            assert healthy.brain.any()
            assert not healthy.lesion.any()
            assert stream(pool, self.MIX).donor(numpy_rng(1, key), labelled=True).lesion.any()
        valid = np.array(prepared[2].valid)
        valid[:, :16] = False
        half = replace(prepared[2], valid=valid, image=np.where(valid, prepared[2].image, np.float32(BACKGROUND)))
        pool = build_pool([half], ["healthy"], lesion_margin_mm=8.0)
        donors = [stream(pool, Mix()).donor(numpy_rng(1, key), labelled=False) for key in range(20)]
        assert all((donor.image[0][donor.brain] > BACKGROUND).mean() > 0.9 for donor in donors)
        assert min(donor.brain.any() for donor in donors)

    @pytest.mark.parametrize(("name", "same_scan"), [("foreign-patch", 0.0), ("poisson", 0.0), ("poisson", 0.01)])
    def test_who_asks_for_other_scans_alone_gets_them_at_the_height_of_the_slice(
        self, prepared: list[Prepared], name: str, same_scan: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[tuple[int, int]] = []
        draw = SampleStream.donor

        def noted(self: SampleStream, *arguments: Any, **told: Any) -> Donor:
            got = draw(self, *arguments, **told)
            sides = [np.ascontiguousarray(side).tobytes() for side in (got.image, got.image[:, ::-1])]
            given.append(next(key for key in pool.healthy if prepared[key[0]].image[..., key[1]].tobytes() in sides))
            return got

        def height(case: int, k: int) -> int:
            judged = np.flatnonzero(enough_brain(prepared[case].brain, prepared[case].spacing_mm)).tolist()
            return 10 * judged.index(k) // len(judged)

        monkeypatch.setattr(SampleStream, "donor", noted)
        pool = build_pool(prepared, HEALTH, lesion_margin_mm=8.0)
        config = plugins.load("anomalies", name).Config(same_scan=same_scan)
        drawn, own, matched = stream(pool, Mix(healthy=0, synthetic=1), anomalies=[config]), [], []
        for index in range(40):
            given.clear()
            sample = drawn.sample(0, index)
            target = int(sample.case_index), int(sample.slice_index)
            heights = {height(*key) for key in pool.healthy if key[0] != target[0]}
            own += [case == target[0] for case, _ in given]
            if height(*target) in heights:
                matched += [abs(height(*key) - height(*target)) for key in given]
        if same_scan:  # nor do the samples of those that do not ask change
            assert any(own)
            assert max(matched) > 0
        else:
            assert len(own) >= 40
            assert not any(own)
            assert max(matched) == 0

    def test_a_lone_case_lends_to_itself(self, prepared: list[Prepared]) -> None:
        pool = build_pool([prepared[2]], ["healthy"], lesion_margin_mm=8.0)
        config = plugins.load("anomalies", "foreign-patch").Config(same_scan=0.0)
        alone = stream(pool, Mix(healthy=0, synthetic=1), anomalies=[config]).samples(0, 8)
        assert alone.lesion.flatten(1).any(dim=1).sum() >= 6

    def test_what_a_generator_states_is_the_lesion_visible_or_not(
        self, prepared: list[Prepared], pool: SlicePool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stated(clean: np.ndarray, brain: np.ndarray) -> Corruption:
            changed, extent = clean.copy(), brain.copy()
            extent[:, 16:] = False
            changed[:, extent] = np.where(clean[:, extent] > 0, -0.5, 0.5)
            changed[:, 12:20] = clean[:, 12:20]  # half of it looks as before
            return with_extent(clean, changed, extent, brain)

        monkeypatch.setattr(SampleStream, "_painted", lambda self, number, clean, brain, *more: stated(clean, brain))
        batch = stream(pool, Mix(healthy=0.0, synthetic=1.0), batch=6, augmentation=STILL)[0]
        for image, healthy, brain, lesion in zip(batch.image, batch.healthy, batch.brain, batch.lesion, strict=True):
            expected = brain.clone()
            expected[:, 16:] = False
            assert torch.equal(lesion, expected)
            assert not (image != healthy).any(dim=0)[lesion].all()

    def test_a_soft_target_is_that_of_painted_slices_alone(self, pool: SlicePool) -> None:
        settings: dict[str, Any] = {"anomalies": (anomaly("foreign-patch"),), "batch": 30}
        mask = stream(pool, self.MIX, **settings)
        soft = stream(pool, self.MIX, target="visibility", **settings)
        kinds = [soft.kind(0, index) for index in range(30)]
        assert set(kinds) == {"healthy", "synthetic", "labelled"}
        for kind, hard, other in zip(kinds, *([s.sample(0, i) for i in range(30)] for s in (mask, soft)), strict=True):
            for entry in fields(Batch):
                same = torch.equal(getattr(hard, entry.name), getattr(other, entry.name))
                painted = kind == "synthetic" and bool(hard.lesion.any())
                assert same != (painted and entry.name == "target"), (kind, entry.name)
            assert not other.target[~other.lesion].any()
            if painted:  # by one factor throughout
                (factor,) = other.target[other.lesion].unique()
                assert 0.2 <= float(factor) < 1

    @pytest.mark.parametrize("name", ["lesion", "perlin", "transplant"])
    def test_what_is_painted_is_labelled_where_it_shows(self, prepared: list[Prepared], name: str) -> None:
        def partly(case: Prepared, shift: int) -> Prepared:
            valid = np.zeros((2, *case.brain.shape), bool)
            valid[0, : 18 if shift else None] = valid[1, shift:] = True
            image = np.where(valid, np.concatenate([case.image, case.image]), np.float32(BACKGROUND))
            return replace(case, image=image, valid=valid)

        cases = [partly(case, 14 * (number > 0)) for number, case in enumerate(prepared)]
        pool = build_pool(cases, HEALTH, lesion_margin_mm=8.0, labelled=[0])
        drawn = stream(pool, Mix(healthy=0.0, synthetic=1.0), anomalies=(anomaly(name),))
        painted = []
        paint = drawn._painted
        drawn._painted = lambda *given: painted.append(paint(*given)) or painted[-1]  # type: ignore[method-assign]
        for step in range(60):
            batch = drawn.sample(step, 0)
            visible = ((batch.image - batch.healthy).abs() > np.float32(VISIBLE_CHANGE)).any(dim=1)[0].numpy()
            lesion, shown = painted[-1].lesion, batch.valid[0].any(dim=0).numpy()
            assert np.array_equal(batch.lesion[0].numpy(), lesion & visible)  # the rule before extents were stated
            ignore = (lesion & ~visible) | painted[-1].ignore | (batch.brain[0].numpy() & ~shown)
            assert np.array_equal(batch.ignore[0].numpy() & batch.brain[0].numpy(), ignore & batch.brain[0].numpy())
        assert len(painted) == 60
        assert any(corruption.lesion.any() for corruption in painted)

    def test_generators_are_drawn_by_their_weights(self, pool: SlicePool, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[int] = []
        paint = SampleStream._painted
        monkeypatch.setattr(
            SampleStream, "_painted", lambda self, number, *more: drawn.append(number) or paint(self, number, *more)
        )
        synthetic = Mix(healthy=0.0, synthetic=1.0)

        def shares(*weights: float) -> np.ndarray:
            perlin = plugins.load("anomalies", "perlin").Config
            mixed = stream(pool, synthetic, anomalies=[perlin(weight=weight) for weight in weights])
            drawn.clear()
            mixed.samples(0, 200)
            return np.bincount(drawn, minlength=len(weights)) / 200

        np.testing.assert_allclose(shares(1.0, 5.0, 2.0), [1 / 8, 5 / 8, 2 / 8], atol=0.1)
        evenly = shares(1.0, 1.0)
        chosen = list(drawn)
        np.testing.assert_allclose(evenly, [0.5, 0.5], atol=0.1)
        np.testing.assert_array_equal(shares(0.2, 0.2), evenly)
        assert drawn == chosen
        heavy, usual = (anomaly("lesion").model_copy(update={"weight": weight}) for weight in (3.0, 1.0))
        for index in range(6):  # alone, a weight has nothing to weigh against
            alone = [stream(pool, synthetic, anomalies=(config,)).sample(1, index) for config in (heavy, usual)]
            assert_same(*alone)

    def test_impossible_mixes(self, prepared: list[Prepared]) -> None:
        pool = build_pool(prepared, HEALTH, lesion_margin_mm=8.0)
        with pytest.raises(DataError, match="no labelled slice"):
            stream(pool, Mix(labelled=1.0))
        with pytest.raises(DataError, match=r"without labelled slices.*\['transplant'\].*mix.labelled"):
            SampleStream(
                pool,
                seed=0,
                batch=1,
                steps=1,
                mix=Mix(synthetic=1.0),
                augmentation=STILL,
                anomalies=[anomaly(), anomaly("transplant")],
            )
        with pytest.raises(DataError, match="no anomaly generator"):
            SampleStream(pool, seed=0, batch=1, steps=1, mix=Mix(synthetic=1.0), augmentation=STILL)


def test_the_remaining_steps_of_a_training() -> None:
    assert list(RemainingSteps(3, 6)) == [3, 4, 5]
    assert len(RemainingSteps(3, 6)) == 6


def test_slices_of_a_case_are_keyed_by_seed_and_index_alone(prepared: list[Prepared]) -> None:
    batch = slices_of(prepared[0], [5, 9], seed=2)
    assert batch.keys.tolist() == [slice_key(2, 5), slice_key(2, 9)]
    assert slices_of(prepared[1], [9], seed=2).keys.tolist() == [slice_key(2, 9)]
    np.testing.assert_array_equal(batch.image[1].numpy(), prepared[0].image[..., 9])
    np.testing.assert_array_equal(batch.lesion[1].numpy(), prepared[0].lesion[..., 9])
    assert len(slices_of(prepared[0], [], seed=2)) == 0


class TestTrainingData:
    def test_only_training_cases_where_there_are_splits(self, tiny_cohort: Path, tmp_path: Path) -> None:
        cases = read_cohort(tiny_cohort)
        assert len(training_cases(tiny_cohort)) == 3
        splits = ("train", "test", "validation")
        write_manifest([replace(c, split=s) for c, s in zip(cases, splits, strict=True)], tmp_path / "split.csv")
        assert [case.subject for case in training_cases(tmp_path / "split.csv")] == ["01"]
        write_manifest([replace(case, split="test") for case in cases], tmp_path / "test.csv")
        with pytest.raises(DataError, match="no training case"):
            training_cases(tmp_path / "test.csv")

    def test_a_case_that_cannot_be_used_is_left_out(
        self, tiny_cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cases = read_cohort(tiny_cohort)
        broken = tmp_path / "broken.nii.gz"
        broken.write_bytes(b"nothing")
        bad = replace(cases[1], images={"FLAIR": broken})
        more = replace(cases[2], subject="04")
        data = prepare_training_data([cases[0], bad, cases[2], more], ANATOMY, tmp_path / "cache")
        assert [case.subject for case in data.cases] == ["01", "03", "04"]
        assert (data.failed, data.direction) == (1, "axial")
        assert "broken.nii.gz" in caplog.text
        with pytest.raises(DataError, match=r"no case can be used.*broken\.nii\.gz"):
            prepare_training_data([bad], ANATOMY, tmp_path / "cache")

    def test_more_than_a_quarter_that_cannot_be_used_is_refused_with_the_first_reasons(
        self, tiny_cohort: Path, tmp_path: Path
    ) -> None:
        cases = read_cohort(tiny_cohort)
        broken = [tmp_path / f"broken_{number}.nii.gz" for number in range(2)]
        for path in broken:
            path.write_bytes(b"nothing")
        bad = [replace(cases[1], images={"FLAIR": path}) for path in broken]
        few = [replace(cases[0], subject=f"{number:02}") for number in range(4)]
        sentence = (
            r"too many cases.*got 2 of 6, the first: .*broken_0\.nii\.gz.*; .*broken_1\.nii\.gz.*25%; correct .* log"
        )
        with pytest.raises(DataError, match=sentence):
            prepare_training_data([*few, *bad], ANATOMY, tmp_path / "cache")
        enough = [replace(cases[0], subject=f"{number:02}") for number in range(6)]
        assert prepare_training_data([*enough, *bad], ANATOMY, tmp_path / "cache").failed == 2

    def test_most_cases_decide_the_acquisition_direction(
        self, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def scan(number: int, *spacing_mm: float) -> Case:
            grid = np.diag([*spacing_mm, 1.0])
            path = write_nifti(tmp_path / f"{number}_FLAIR.nii.gz", np.ones((3, 4, 5), np.float32), grid)
            return Case("made", f"{number:02}", {"FLAIR": path}, health="healthy")

        whole, *sagittal = scan(0, 1.0, 1.0, 1.0), *(scan(number, 5.0, 1.0, 1.0) for number in range(1, 5))
        coronal, broken = scan(5, 1.0, 5.0, 1.0), replace(whole, images={"FLAIR": tmp_path / "none.nii.gz"})
        names = ("FLAIR",)
        assert usual_direction([whole, *sagittal], names) == "sagittal"
        assert usual_direction([sagittal[0], coronal, broken], names) == "coronal"
        assert usual_direction([sagittal[0], coronal, whole], names) == "axial"
        assert usual_direction([broken], names) == "axial"
        asked = []

        def kept(self: PreparedCache, case: Case, anatomy: object, direction: str) -> Prepared:
            asked.append(direction)
            if direction != "sagittal" or case is whole:
                raise DataError("another acquisition direction")
            return ready

        ready = prepared_cases(tiny_cohort)[0]
        monkeypatch.setattr(PreparedCache, "get", kept)
        data = prepare_training_data([whole, *sagittal], ANATOMY, tmp_path / "cache")
        assert (data.direction, data.failed, asked) == ("sagittal", 1, ["sagittal"] * 5)
        assert prepare_training_data(sagittal, ANATOMY, tmp_path / "cache", "sagittal").direction == "sagittal"

    def test_the_summary_holds_ranges_of_measures_and_no_number_of_a_patient(self, tiny_cohort: Path) -> None:
        columns = {
            "Age_years": ["41", "63", "n/a"],
            "magnetic field strength": ["3", "1.5", "3"],
            "patient_id": ["4711", "4712", "4713"],
            "family": ["12", "12", "13"],
            "weight": ["nan", "", "NA"],
            "Site": ["1", "1", "2"],
            "scanner": ["Aera", "Aera", "Skyra"],
        }
        cases = [
            replace(case, attributes={name: values[number] for name, values in columns.items()})
            for number, case in enumerate(read_cohort(tiny_cohort))
        ]
        prepared = prepared_cases(tiny_cohort)
        data = TrainingData(tuple(cases), tuple(prepared), "axial", 0)
        summary = training_summary(data, build_pool(prepared, HEALTH, lesion_margin_mm=8.0), ())
        assert summary["attributes"] == {
            "Age_years": [41.0, 63.0],
            "magnetic field strength": [1.5, 3.0],
            "Site": {"1": 2, "(others)": 1},
            "scanner": {"Aera": 2, "(others)": 1},
        }

    def test_a_case_with_an_unexpected_error_is_left_out_by_name(
        self, tiny_cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready = PreparedCache.get

        def faulty(self: PreparedCache, case: Case, *more: object) -> Prepared:
            return ready(self, case, *more) if case.subject != "02" else [][0]

        monkeypatch.setattr(PreparedCache, "get", faulty)
        cases = read_cohort(tiny_cohort)
        data = prepare_training_data([*cases, replace(cases[2], subject="04")], ANATOMY, tmp_path / "cache")
        assert ([case.subject for case in data.cases], data.failed) == (["01", "03", "04"], 1)
        assert "sub-02 left out of training: unexpected IndexError: list index out of range" in caplog.text

    def test_the_limit_draws_labelled_cases_by_seed_and_identity(self, tiny_cohort: Path) -> None:
        cases, prepared = read_cohort(tiny_cohort), prepared_cases(tiny_cohort)
        many = [replace(cases[0], subject=f"{number:02}") for number in range(12)]
        data = TrainingData((*many, cases[2]), (prepared[0],) * 12 + (prepared[2],), "axial", 0)
        chosen = labelled_cases(data, 5, seed=1)
        assert len(chosen) == 5
        assert 12 not in chosen  # it has no lesion
        assert set(labelled_cases(data, 4, seed=1)) < set(chosen)
        assert any(labelled_cases(data, 5, seed=s) != chosen for s in (2, 3))
        assert len(labelled_cases(data, None, seed=1)) == 12
        turned = TrainingData(tuple(reversed(data.cases)), tuple(reversed(data.prepared)), "axial", 0)
        names = {turned.cases[i].subject for i in labelled_cases(turned, 5, seed=1)}
        assert names == {data.cases[i].subject for i in chosen}
        lesion = np.zeros_like(prepared[0].lesion)
        lesion[tuple(np.argwhere(prepared[0].brain & prepared[0].lesion)[0])] = True  # nothing to learn from one voxel
        speck = replace(prepared[0], lesion=lesion)
        few = TrainingData(data.cases, (speck,) * 6 + data.prepared[6:], "axial", 0)
        assert labelled_cases(few, None, seed=1) == (6, 7, 8, 9, 10, 11)
        with pytest.raises(DataError, match="too few labelled"):
            labelled_cases(data, 13, seed=1)
        with pytest.raises(DataError, match="too few labelled"):
            labelled_cases(TrainingData((cases[2],), (prepared[2],), "axial", 0), None, seed=1)


def test_painted_lesions_are_bright_on_flair_and_dark_on_t1w(tiny_cohort: Path) -> None:
    """One number ``bright`` is for both, as the shipped config has it: real lesions look so."""
    contrasts = ("FLAIR", "T1w")
    both = prepared_cases(tiny_cohort, ANATOMY.model_copy(update={"contrasts": contrasts}))
    shipped = configs.load("synthetic", [], kind="detector").anomalies
    painted = stream(
        build_pool(both, HEALTH, lesion_margin_mm=8.0),
        Mix(healthy=0, synthetic=1),
        augmentation=STILL,
        anomalies=for_contrasts(shipped, contrasts),
    ).samples(0, 100)
    change = painted.image - painted.healthy
    signs = [
        (float(one[0][lesion].mean()) > 0, float(one[1][lesion].mean()) > 0)
        for one, lesion in zip(change, painted.lesion, strict=True)
        if lesion.any()
    ]
    assert len(signs) > 80
    assert np.mean([pair == (True, False) for pair in signs]) >= 0.8
