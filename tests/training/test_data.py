"""A cohort made ready for training: which patients' labels are learnt from, and what a bundle says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import prepared_cases

from hybriduad.core.errors import DataError
from hybriduad.core.types import Case
from hybriduad.training.data import TrainingData, contrast_summary, labelled_cases, training_summary
from hybriduad.training.samples import build_pool


@pytest.fixture(scope="module")
def data(tiny_cohort: Path) -> TrainingData:
    """Six patients, "a" to "f": three sessions of each of "a" and "b", one of the others, "f" without a lesion."""
    sick, _, healthy = prepared_cases(tiny_cohort)
    visits = [(subject, session) for session in ("1", "2", "3") for subject in "ab"]
    visits += [(subject, "1") for subject in "cdef"]
    cases = tuple(Case("set", subject, {}, session=session) for subject, session in visits)
    return TrainingData(cases, tuple(healthy if case.subject == "f" else sick for case in cases), "axial", 0)


def subjects(data: TrainingData, chosen: tuple[int, ...]) -> set[str]:
    return {data.cases[index].subject for index in chosen}


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_a_limit_counts_patients_and_keeps_the_sessions_of_one_together(data: TrainingData, limit: int) -> None:
    """It counted cases: three of 5 could be one patient's, and a patient's sessions were torn apart."""
    for seed in range(8):
        chosen = labelled_cases(data, limit, seed)
        drawn = subjects(data, chosen)
        assert len(drawn) == limit
        assert chosen == tuple(index for index, case in enumerate(data.cases) if case.subject in drawn)
        assert "f" not in drawn


def test_the_draw_is_by_the_seed_and_who_the_patients_are(data: TrainingData) -> None:
    assert len({labelled_cases(data, 2, seed) for seed in range(20)}) > 3
    backwards = replace(data, cases=data.cases[::-1], prepared=data.prepared[::-1])
    for seed in range(5):
        assert subjects(backwards, labelled_cases(backwards, 2, seed)) == subjects(data, labelled_cases(data, 2, seed))
        # A session more of a patient changes nothing, a patient more at most one of those chosen.
        prepared = (*data.prepared, data.prepared[0])
        more = replace(data, cases=(*data.cases, Case("set", "c", {}, session="2")), prepared=prepared)
        assert subjects(more, labelled_cases(more, 2, seed)) == subjects(data, labelled_cases(data, 2, seed))
        larger = replace(more, cases=(*data.cases, Case("set", "z", {})))
        kept = subjects(larger, labelled_cases(larger, 3, seed)) & subjects(data, labelled_cases(data, 3, seed))
        assert len(kept) >= 2


def test_the_same_name_in_two_data_sets_is_two_patients(data: TrainingData) -> None:
    twins = replace(data, cases=tuple(Case(f"set{number}", "a", {}) for number in range(len(data.cases))))
    assert len(labelled_cases(twins, 7, 0)) == 7


def test_too_few_patients(data: TrainingData) -> None:
    with pytest.raises(DataError, match=r"too few labelled patients.*got 5.*expected 6.*lower --limit"):
        labelled_cases(data, 6, 0)
    assert len(labelled_cases(data, None, 0)) == 9


def test_the_summary_counts_cases_and_patients(data: TrainingData) -> None:
    labelled = tuple(index for index, case in enumerate(data.cases) if case.subject in ("a", "c"))
    pool = build_pool(data.prepared, ["lesion"] * 9 + ["healthy"], lesion_margin_mm=0.0, labelled=labelled)
    summary = training_summary(data, pool, labelled)
    assert (summary["cases"], summary["subjects"]) == (10, 6)
    assert (summary["labelled_cases"], summary["labelled_subjects"]) == (4, 2)


def test_the_summary_of_contrasts_counts_the_cases_that_lack_each(data: TrainingData) -> None:
    first, *rest = data.prepared
    both = [replace(case, valid=np.concatenate([case.valid] * 2)) for case in (first, *rest)]
    for case in both[:3]:
        case.valid[1] = False
    summary = contrast_summary(replace(data, prepared=tuple(both)), ("FLAIR", "T1w"), 0.2)
    assert summary == {"dropout": 0.2, "lacking_cases": {"FLAIR": 0, "T1w": 3}}
