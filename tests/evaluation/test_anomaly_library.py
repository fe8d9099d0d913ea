"""Every generator on one scan, beside the lesions of a cohort."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybriduad.cohort.manifest import read_manifest, write_manifest
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.evaluation import anomaly_library
from hybriduad.evaluation.anomaly_library import draw_library

NAMES = plugins.names("anomalies")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomaly_library, "DRAWS", 4)


def scan_of(tiny_cohort: Path, subject: str = "03") -> Path:
    return tiny_cohort.parent / f"sub-{subject}" / "anat" / f"sub-{subject}_FLAIR.nii.gz"


def table(out: Path) -> dict[str, dict[str, str]]:
    with out.with_suffix(".csv").open() as stream:
        return {row["lesions"]: row for row in csv.DictReader(stream)}


def test_every_generator_has_a_row_beside_the_real_lesions(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list = []
    monkeypatch.setattr(anomaly_library, "slice_grid", lambda _, rows, titles, labels: drawn.append((rows, labels)))
    out = tmp_path / "all.png"
    text = draw_library(scan_of(tiny_cohort), out, cohort=tiny_cohort, count=2)
    rows, labels = drawn[0]
    assert labels == ["scan, brain", *NAMES, "real"]
    assert {len(row) for row in rows} == {4}
    bias = rows[labels.index("intensity-bias")]
    for clean, brain, painted, lesion in zip(rows[0][::2], rows[0][1::2], bias[::2], bias[1::2], strict=True):
        assert lesion.any()
        assert not (lesion & ~brain).any()
        assert np.abs(painted - clean)[lesion].mean() > 0.05
        assert np.array_equal(painted[~brain], clean[~brain])
    assert all(lesion.any() for lesion in rows[-1][1::2])
    figures = table(out)
    assert list(figures) == ["real", *NAMES]
    for name in NAMES:
        assert figures[name]["slices"] == "4"
        assert float(figures[name]["with_lesion"]) >= 0.5
        assert float(figures[name]["area_cm2"]) > 0
        assert 0 <= float(figures[name]["ks_area_cm2"]) <= 1
        assert 0 < float(figures[name]["visibility"]) <= 1
    assert figures["real"]["change"] == ""  # what a real lesion covers is not known
    assert float(figures["real"]["contrast"]) > 0  # gliomas on FLAIR
    assert float(figures["atrophy-cavity"]["contrast"]) < 0  # fluid on FLAIR
    assert out.with_suffix(".md").read_text() == text
    assert "cases" in text
    assert "Left out" not in text


@pytest.mark.parametrize(("contrast", "sign"), [("FLAIR", -1), ("T2w", 1)])
def test_fluid_looks_as_it_does_on_the_contrast(contrast: str, sign: int, tiny_cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    draw_library(
        scan_of(tiny_cohort), out, count=1, overrides=["anomalies=[{name: atrophy-cavity}]"], contrast=contrast
    )
    assert sign * float(table(out)["atrophy-cavity"]["change"]) > 0.05


def test_without_a_cohort_those_that_need_labels_are_left_out(tiny_cohort: Path, tmp_path: Path) -> None:
    generators = "anomalies=[{name: smooth-intensity}, {name: smooth-intensity, bright: 0.9}, {name: transplant}]"
    out, same, other = (tmp_path / f"{name}.png" for name in ("a", "b", "c"))
    text = draw_library(scan_of(tiny_cohort), out, count=1, overrides=[generators])
    assert "(--cohort): transplant." in text
    assert list(table(out)) == ["smooth-intensity", "smooth-intensity bright=0.9"]
    assert out.read_bytes().startswith(b"\x89PNG")
    for _ in range(2):  # a table of its own is replaced
        assert draw_library(scan_of(tiny_cohort), same, count=1, overrides=[generators]) == text
    assert same.read_bytes() == out.read_bytes()
    assert draw_library(scan_of(tiny_cohort), other, count=1, overrides=[generators, "seed=1"]) != text


def test_only_training_cases_are_looked_at_and_a_scan_among_them_is_painted_beside_its_lesion(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {"01": "train", "02": "test", "03": "test"}
    cohort = tmp_path / "split.csv"
    write_manifest([replace(case, split=splits[case.subject]) for case in read_manifest(tiny_cohort)], cohort)
    seen: list = []
    known = anomaly_library.build_pool

    def spy(prepared: list, *args: object, **named: object) -> object:
        seen.append(known(prepared, *args, **named))
        return seen[-1]

    monkeypatch.setattr(anomaly_library, "build_pool", spy)
    perlin = ["anomalies=[{name: perlin}]"]
    text = draw_library(scan_of(tiny_cohort, "01"), tmp_path / "a.png", cohort=cohort, count=1, overrides=perlin)
    (pool,) = seen
    assert len(pool.prepared) == 1  # the scan and the training case are one
    shown = {k for _, k in pool.labelled}
    assert shown
    assert not shown & {k for _, k in pool.healthy}
    assert f"Real: all labelled slices, {len(shown)} of 1 cases." in text


def test_refuses(tiny_cohort: Path, tmp_path: Path) -> None:
    scan, out = scan_of(tiny_cohort), tmp_path / "a.png"
    with pytest.raises(ConfigError, match=r"no name of a picture.*ends in .png"):
        draw_library(scan, tmp_path / "a.md")
    with pytest.raises(ConfigError, match=r"got \['train.lr'\], expected anomalies=.* or seed="):
        draw_library(scan, out, overrides=["train.lr=1"])
    with pytest.raises(ConfigError, match=r"got \['transplant'\].*--cohort"):
        draw_library(scan, out, overrides=["anomalies=[{name: transplant}]"])
    healthy = tmp_path / "healthy.csv"
    write_manifest([case for case in read_manifest(tiny_cohort) if case.health == "healthy"], healthy)
    with pytest.raises(DataError, match=r"no labelled slice in the cohort.*FLAIR"):
        draw_library(scan, out, cohort=healthy)
    kept = healthy.read_bytes()
    with pytest.raises(DataError, match=r"another file is where a table goes in .*healthy.csv; choose another --out"):
        draw_library(scan, tmp_path / "healthy.png", cohort=healthy)
    assert healthy.read_bytes() == kept
    assert not list(tmp_path.glob("a.*"))
