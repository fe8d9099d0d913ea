"""Flags of a record, whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from hybriduad.prediction.flags import flags_of, out_of_distribution


def test_every_kind_of_flag_is_read() -> None:
    record = {
        "quality": {
            "flags": [{"name": "blur", "value": 0.4, "limit": 0.55}, {"name": "noise", "sentence": "It is noisy."}],
            "out_of_distribution": {"distance": 31.0, "limit": 20.0},
        },
        "notes": {"absent_contrasts": ["T2w"], "lacking": {"FLAIR": 0.2, "T1w": 0.01}, "orientation_stated": False},
    }
    assert [tuple(flag) for flag in flags_of(record)] == [
        ("blur", "0.4, limit 0.55."),
        ("noise", "It is noisy."),
        ("unlike the training scans", "Distance 31 from the training scans, limit 20."),
        ("contrasts absent", "T2w: less sure, thresholds may not fit."),
        ("contrast does not cover the brain", "FLAIR lacks 20% of it."),
        ("orientation not stated", "The header states none: voxels were taken as running left, forward, up."),
    ]
    record["quality"]["out_of_distribution"]["distance"] = 20.0
    assert "unlike the training scans" not in [flag.name for flag in flags_of(record)]
    assert out_of_distribution(record) == (20.0, 20.0)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"quality": None, "notes": None},
        {"quality": {"flags": 3, "out_of_distribution": {"distance": "far"}}, "notes": {"absent_contrasts": 3}},
        {"quality": {"flags": ["blur"], "out_of_distribution": [1, 2]}, "notes": {"lacking": {"FLAIR": "much"}}},
    ],
)
def test_what_is_not_as_it_should_be_is_passed_over(record: dict[str, Any]) -> None:
    assert flags_of(record) == []
    assert out_of_distribution(record) is None
