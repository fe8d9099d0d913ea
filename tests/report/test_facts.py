"""What a page says of a case in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybriduad.config import files as configs
from hybriduad.report.facts import score_of
from hybriduad.report.methods import methods
from hybriduad.report.records import Record

BOTH = ["map", "probability"]


def fusion_of(config: str) -> dict[str, object]:
    """As predictions of a detector of a shipped config state its fusion."""
    return configs.load(config, [], kind="detector").fusion.model_dump(mode="json")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            "synthetic",
            "the product of the reconstruction's anomaly map (exponent 0.5), the segmenter's probability (behind a "
            "floor of 0.05), a step in intensity at 0.25 beyond the brain's median or a departure to the other side of "
            "pseudo-healthy tissue (exponent 1) and left-right asymmetry (exponent 0.5, behind a floor of 0.05)",
        ),
        (
            "demo-detector",
            "the product of the reconstruction's anomaly map (exponent 0.25), the segmenter's probability (behind a "
            "floor of 0.05) and left-right asymmetry (exponent 0.5, behind a floor of 0.05)",
        ),
        (
            "paper-score",
            "the mean of the reconstruction's anomaly map (weight 1) and of the segmenter's probability",
        ),
    ],
)
def test_the_score_is_said_as_the_config_fuses_it(config: str, expected: str) -> None:
    assert score_of({"parts": BOTH, "fusion": fusion_of(config)}) == expected


def test_a_product_of_map_and_probability_names_no_other_witness() -> None:
    words = score_of({"parts": BOTH, "fusion": {"form": "product", "weight": 0.5}})
    assert words == "the product of the reconstruction's anomaly map (exponent 0.5) and the segmenter's probability"


@pytest.mark.parametrize(("part", "name"), [("map", "anomaly map"), ("probability", "segmenter's probability")])
def test_the_score_of_a_part_alone_knows_no_fusion(part: str, name: str) -> None:
    words = score_of({"parts": [part], "fusion": fusion_of("synthetic")})
    assert (name in words, words.endswith(" alone")) == (True, True)


@pytest.mark.parametrize("model", [{}, {"parts": BOTH}, {"parts": BOTH, "fusion": "<b>"}, {"parts": {"map": 1}}])
def test_predictions_that_do_not_state_the_fusion_claim_none(model: dict[str, object]) -> None:
    record = Record(Path(), Path("sub-01"), {"bundle": "0" * 64, "parts": {}, "notes": {}, "inputs": {"FLAIR": {}}})
    words = methods(record, model)
    assert "whose parts these predictions do not state" in words
    assert "segmenter" not in words
