"""Pictures of what a generator does to a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError
from hybriduad.training import anomaly_sheet as anomaly_pictures
from hybriduad.training.anomaly_sheet import draw_anomalies


@pytest.fixture
def scan(tiny_cohort: Path) -> Path:
    return tiny_cohort.parent / "sub-03" / "anat" / "sub-03_FLAIR.nii.gz"


def test_rows_hold_a_slice_its_anomaly_and_the_lesion(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(anomaly_pictures, "slice_grid", lambda _, rows, titles, **__: drawn.append((rows, titles)))
    for count in (1, 4):
        draw_anomalies("synthetic", scan, tmp_path / "a.png", count=count)
    (first,), rows = drawn[0][0], drawn[1][0]
    assert len(rows) == 4
    assert all(np.array_equal(a, b) for a, b in zip(first, rows[0], strict=True))  # whatever their number
    with_lesion = [row for row in rows if row[2].any()]
    assert len(with_lesion) >= 2
    for clean, painted, lesion in with_lesion:
        change = np.abs(painted - clean)
        assert lesion.dtype == bool
        assert clean.min() == -1
        assert change[lesion].mean() > 0.05
        assert change[lesion].mean() > 5 * change[~lesion].mean()


@pytest.mark.parametrize("name", sorted(set(plugins.names("anomalies")) - {"transplant"}))
def test_every_generator_that_needs_no_labels_is_drawn(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    drawn = []
    monkeypatch.setattr(anomaly_pictures, "slice_grid", lambda _, rows, titles, **__: drawn.extend(rows))
    draw_anomalies("synthetic", scan, tmp_path / "a.png", count=6, overrides=[f"anomalies=[{{name: {name}}}]"])
    assert sum(bool(lesion.any()) and bool((clean != painted).any()) for clean, painted, lesion in drawn) >= 4


def test_writes_a_picture_and_another_seed_another(scan: Path, tmp_path: Path) -> None:
    first, same = (
        imread(draw_anomalies("synthetic", scan, tmp_path / name, count=1)) for name in ("one.png", "same.png")
    )
    reseeded = imread(draw_anomalies("synthetic", scan, tmp_path / "other.png", count=1, overrides=["seed=1"]))
    few = draw_anomalies("few-labels", scan, tmp_path / "few.png", count=1)  # without the transplants of its mix
    assert imread(few).std() > 0.05
    assert first.ndim == 3
    assert first.std() > 0.05
    assert np.array_equal(first, same)
    assert first.shape != reseeded.shape or not np.array_equal(first, reseeded)


def test_refuses(scan: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config without anomalies to paint in synthetic"):
        draw_anomalies("synthetic", scan, tmp_path / "a.png", overrides=["anomalies=[]"])
    with pytest.raises(ConfigError, match="that needs no labelled slices"):
        draw_anomalies("few-labels", scan, tmp_path / "a.png", overrides=["anomalies=[{name: transplant}]"])
    with pytest.raises(ConfigError, match="got 0, expected a count of at least 1"):
        draw_anomalies("synthetic", scan, tmp_path / "a.png", count=0)
