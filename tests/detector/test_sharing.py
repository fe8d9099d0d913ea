"""What detectors share: each network runs once on a slice, and no result is another's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import prepared_cases

from hybriduad.config.runs import Fusion
from hybriduad.detector import sharing
from hybriduad.detector.inference import Detector
from hybriduad.detector.loading import load_detector
from hybriduad.detector.sharing import Results, network_digest, shared
from hybriduad.scan.preparation import Prepared

PARTS = ("score", "probability", "map", "uncertainty", "intensity", "asymmetry", "reconstruction")


@pytest.fixture(scope="module")
def prepared(tiny_cohort: Path) -> list[Prepared]:
    return prepared_cases(tiny_cohort)


@pytest.fixture
def detector(tiny_detector: Path) -> Detector:
    return load_detector(tiny_detector, device="cpu")


def counted(network: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    calls: list[int] = []
    run = getattr(network, name)
    monkeypatch.setattr(network, name, lambda *inputs: calls.append(1) or run(*inputs))
    return calls


def assert_same(first: Any, second: Any) -> None:
    for part in PARTS:
        np.testing.assert_array_equal(getattr(first, part), getattr(second, part), err_msg=part)


def test_detectors_of_the_same_networks_run_them_once_and_predict_as_alone(
    detector: Detector, tiny_detector: Path, prepared: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_detector(tiny_detector, device="cpu")
    other.fusion = Fusion(form="sum", weight=3.0)
    alone = [one.predict_volume(prepared[0]) for one in (detector, other)]
    assert not np.array_equal(alone[0].score, alone[1].score)
    with shared(Results()):
        assert_same(detector.predict_volume(prepared[0]), alone[0])
        reconstructions = counted(other.reconstructor, monkeypatch, "reconstruct")
        calls = reconstructions, counted(other.segmenter, monkeypatch, "forward")
        assert_same(other.predict_volume(prepared[0]), alone[1])
        assert calls == ([], [])
        other.predict_volume(prepared[1])
        assert all(calls)
    before = len(calls[0])
    other.predict_volume(prepared[0])
    assert len(calls[0]) > before  # nothing is shared any more


def test_another_segmenter_takes_the_reconstructions_alone(
    detector: Detector, prepared: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy.copy(detector)
    other._digests = {}
    other.segmenter = copy.deepcopy(detector.segmenter)
    with torch.no_grad():
        other.segmenter.head[0].bias.add_(1.0)
    alone = other.predict_volume(prepared[0])
    calls = counted(detector.reconstructor, monkeypatch, "reconstruct")
    with shared(Results()):
        assert not np.array_equal(detector.predict_volume(prepared[0]).probability, alone.probability)
        before = len(calls)
        assert_same(other.predict_volume(prepared[0]), alone)
    assert len(calls) == before > 0


def test_another_seed_precision_or_filter_shares_nothing_that_depends_on_it(
    detector: Detector, prepared: list[Prepared]
) -> None:
    seeded, rough, filtered = (copy.copy(detector) for _ in range(3))
    seeded.seed += 1
    rough.precision = "bfloat16"
    wider = {"median_mm": 3 * detector.residual.median_mm + 5}
    filtered.residual = detector.residual.model_copy(update=wider)
    others = (seeded, rough, filtered)
    alone = [other.predict_volume(prepared[0]) for other in others]
    with shared(Results()):
        detector.predict_volume(prepared[0])
        for other, expected in zip(others, alone, strict=True):
            assert_same(other.predict_volume(prepared[0]), expected)


def test_a_network_is_known_by_its_weights_and_config(detector: Detector) -> None:
    segmenter = detector.segmenter
    again = copy.deepcopy(segmenter)
    assert network_digest(again) == network_digest(segmenter)
    again.config = again.config.model_copy(update={"encoder": "resnet34"})
    assert network_digest(again) != network_digest(segmenter)
    changed = copy.deepcopy(segmenter)
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0] += 1e-3
    assert network_digest(changed) != network_digest(segmenter)


def test_the_results_asked_for_longest_ago_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "BYTES", 200)
    results, made = Results(), []

    def of(name: str) -> np.ndarray:
        return results.of(name, (), lambda: made.append(name) or np.full(10, ord(name), dtype=np.float64))

    for name in "ababcab":  # each is of 80 bytes, so two stay
        np.testing.assert_array_equal(of(name), ord(name))
    assert made == ["a", "b", "c", "a", "b"]
    assert results.of("a", (np.zeros(3, np.int8),), lambda: 1) == 1
    assert results.of("a", (np.zeros(3, np.int16),), lambda: 2) == 2
    assert results.of("a", (None, np.zeros(3, np.int8)), lambda: 3) == 3
