"""Results on disk: everything comes back, an older file is read, and a case stays small."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hybriduad.benchmark import results
from hybriduad.benchmark.results import read_result, write_result
from hybriduad.core.errors import DataError
from hybriduad.detector.thresholds import PARTS
from hybriduad.evaluation.case import CaseScores
from hybriduad.evaluation.figures import OUTLINED, RANKED
from hybriduad.metrics import ScoreHistogram
from hybriduad.metrics.coarse import precision_recall
from hybriduad.metrics.histogram import key_edges, score_keys

VOXELS = 300_000


def example() -> results.TestedCase:
    rng = np.random.default_rng(0)
    truth = rng.random(VOXELS) < 0.02
    histograms = {}
    for part in PARTS:
        histograms[part] = ScoreHistogram()
        histograms[part].add((1 / (1 + np.exp(4 - rng.normal(size=VOXELS) - 2 * truth))).astype(np.float32), truth)
    figures = {part: {name: float(rng.random()) for name in (*RANKED, *OUTLINED)} for part in PARTS}
    figures["score"]["hd95"] = math.nan
    lesions = tuple(rng.random(12).tolist())
    facts = {"dataset": "d", "subject": "01", "case": "sub-01", "lesion_voxels": 5, "l1_ratio": 3.0}
    facts |= {"truth": "abc" * 20, "region": "def" * 20, "brain_method": "given mask"}
    coverage = {part: tuple(rng.random(12).tolist()) for part in PARTS}
    return results.TestedCase.of(CaseScores(facts, figures, histograms, {}, lesions, coverage))


def test_a_case_comes_back_and_is_small(tmp_path: Path) -> None:
    case = example()
    write_result(tmp_path / "r.json", {"rule": "best-dice"}, [case])
    ((read,), curves) = read_result(tmp_path / "r.json")
    assert curves == ()
    assert (read.truth, read.region, read.brain) == (("abc" * 20)[:16], ("def" * 20)[:16], "given mask")
    assert (read.subject, read.name, read.has_lesion) == (case.subject, case.name, True)
    assert read.facts == {"l1_ratio": 3.0}
    assert math.isnan(read.parts["score"].pop("hd95"))
    for part in PARTS:
        for name, value in read.parts[part].items():
            assert value == pytest.approx(case.parts[part][name], rel=1e-5)
        assert read.coverage[part] == pytest.approx(case.coverage[part], rel=1e-5)
        for a, b in zip(precision_recall(read.histograms[part]), precision_recall(case.histograms[part]), strict=True):
            np.testing.assert_array_equal(a, b)
        assert read.histograms[part].negatives + read.histograms[part].positives == VOXELS
    assert read.lesions == pytest.approx(case.lesions, rel=1e-5)
    assert (tmp_path / "r.json").stat().st_size < 8_000


def test_dice_by_the_healthy_only_rule_is_that_of_its_mask() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(VOXELS) < 0.02
    scores = (1 / (1 + np.exp(4 - rng.normal(size=VOXELS) - 2 * truth))).astype(np.float32)
    histogram = ScoreHistogram()
    histogram.add(scores, truth)
    threshold = float(key_edges(score_keys(np.array([0.1], np.float32)))[0])
    facts = {"dataset": "d", "subject": "01", "case": "sub-01", "lesion_voxels": 5}
    case = CaseScores(facts, {"score": {"dice": 0.5}}, {"score": histogram}, {})
    mask = scores >= threshold
    expected = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    kept = results.TestedCase.of(case, {"score": threshold, "map": 0.5})
    assert kept.parts == {"score": {"dice": 0.5, "dice_healthy_rule": pytest.approx(expected)}}
    assert results.TestedCase.of(case).parts == {"score": {"dice": 0.5}}


def test_a_file_from_before_is_read_and_what_it_lacks_is_undefined(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_result(path, {}, [example()])
    content = json.loads(path.read_text())
    for name in ("lesions", "coverage", "bins", "truth", "region", "brain"):
        del content["cases"][0][name]
    content["about"]["chain"] = [{"stage": "reconstructor", "config": "ae", "set": [], "limit": None}]
    path.write_text(json.dumps(content))
    ((read,), curves) = read_result(path)
    assert curves == ()
    assert (read.lesions, read.coverage, read.histograms) == ((), {}, {})
    assert (read.truth, read.region, read.brain) == ("", "", "")
    assert 0 < read.parts["score"]["dice"] < 1


def test_who_is_no_control_comes_back_and_of_a_file_from_before_all_without_a_lesion_are(tmp_path: Path) -> None:
    path, facts = tmp_path / "r.json", {"dataset": "d", "subject": "01", "case": "sub-01"}
    stated = [{"lesion_voxels": 5, "control": False}, {"lesion_voxels": 0, "control": True}]
    stated += [{"lesion_voxels": 0, "control": False}, {"lesion_voxels": 0}]
    write_result(path, {}, [results.TestedCase.of(CaseScores(facts | known, {}, {}, {})) for known in stated])
    assert [case.set_aside for case in read_result(path).cases] == [False, False, True, False]
    assert [case["control"] for case in json.loads(path.read_text())["cases"]] == [False, True, False, True]
    content = json.loads(path.read_text())
    for case in content["cases"]:
        del case["control"]
    path.write_text(json.dumps(content))
    assert [case.set_aside for case in read_result(path).cases] == [False] * 4


def test_curves_of_trainings_come_back_and_those_that_trained_nothing_have_none(tmp_path: Path) -> None:
    curves = {"reconstructor": [[100, 0.125], [200, 0.25]], "detector": [[200, 0.5]]}
    chain = [{"stage": stage, "validation": curve} for stage, curve in curves.items()]
    chain.append({"stage": "detector", "validation": []})
    write_result(tmp_path / "r.json", {"chain": chain}, [example()])
    read = read_result(tmp_path / "r.json").curves
    assert read == (("reconstructor", {100: 0.125, 200: 0.25}), ("detector", {200: 0.5}))


@pytest.mark.parametrize("broken", [[[1], [1]], [[1, -1], [1, 1], [0, 0]], [[1], [1], [1, 2]], 7])
def test_bins_that_are_none_are_refused(broken: object, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_result(path, {}, [example()])
    content = json.loads(path.read_text())
    content["cases"][0]["bins"]["score"] = broken
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"unreadable result.*delete it, it is made anew"):
        read_result(path)
