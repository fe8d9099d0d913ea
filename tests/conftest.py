"""Shared fixtures: a tiny cohort of phantoms, and untrained bundles of both kinds that behave like trained ones.

They are made once a session and must be treated as read-only: copy before changing anything.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

# Networks this small are slower on several threads, and the tests share the machine. Said before any library starts
# its threads, and inherited by the processes that tests start: results are the same only for the same threads.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from tiny import CONTRASTS, DETECTOR, PATHOLOGIES, RECONSTRUCTOR, SPACING_MM, write_nifti

torch.set_num_threads(1)

SLOWEST = (
    "test_fitting.py",
    "test_kill_test.py",
    "test_runners.py",
    "test_quality.py",
    "test_wheel.py",
    "test_paper.py",
    "test_train_cohort.py",
    "test_speed.py",
    "test_chain.py",
)
"""Files of many seconds each. They come first: several processes take a file at a time, and none ends long after the
others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name what was not tested, at the end, where it is read: each reason to skip and how many tests it cost."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in reasons.items():
        tests = f"{count} test{'s' if count > 1 else ''}"
        terminalreporter.write_line(f"not tested: {reason.removeprefix('Skipped: ')}, {tests}")


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of three phantoms of 34 x 41 x 22 voxels, FLAIR and T1w: 01 and 02 with a glioma, 03 healthy.

    All have a brain and a lesion mask (empty for 03) and no split.
    """
    from hybriduad.cohort.manifest import write_manifest
    from hybriduad.core.types import Case
    from hybriduad.phantom.subject import make_subject

    root = tmp_path_factory.mktemp("tiny_cohort")
    cases = []
    for subject, pathology in PATHOLOGIES.items():
        phantom = make_subject(7, int(subject), pathology=pathology, contrasts=CONTRASTS, spacing_mm=SPACING_MM)
        folder = root / f"sub-{subject}" / "anat"
        masks = {"brain": phantom.brain, "lesion": phantom.lesion}
        files = {
            name: write_nifti(folder / f"sub-{subject}_{name}.nii.gz", data, phantom.affine)
            for name, data in phantom.images.items()
        } | {
            name: write_nifti(folder / f"sub-{subject}_label-{name}_mask.nii.gz", mask.astype(np.uint8), phantom.affine)
            for name, mask in masks.items()
        }
        cases.append(
            Case(
                "tiny",
                subject,
                {name: files[name] for name in CONTRASTS},
                brain=files["brain"],
                lesion=files["lesion"],
                health="lesion" if pathology else "healthy",
                attributes=dict(phantom.attributes),
            )
        )
    write_manifest(cases, root / "manifest.csv")
    return root / "manifest.csv"


@pytest.fixture(scope="session")
def tiny_reconstructor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of an untrained DDPM for FLAIR, 32 x 32, axial, two levels; it has used no scan."""
    from hybriduad.config import files as configs
    from hybriduad.core import plugins, rng
    from hybriduad.detector import bundle

    run = configs.parse(RECONSTRUCTOR, "tests", "reconstructor")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(0, "tiny"))
        model = plugins.load("reconstructors", "ddpm").Model(run.model, 1, run.anatomy.size)
    folder = tmp_path_factory.mktemp("bundles") / "reconstructor"
    bundle.save(folder, run, model.state_dict(), _statistics(), _description(run.anatomy))
    return folder


@pytest.fixture(scope="session")
def tiny_detector(tiny_reconstructor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of an untrained detector around :func:`tiny_reconstructor`, calibrated by the rule ``best-dice``."""
    from hybriduad.config import files as configs
    from hybriduad.core import rng
    from hybriduad.detector import bundle
    from hybriduad.networks.segmenter import Segmenter

    run = configs.parse(DETECTOR, "tests", "detector")
    parent = bundle.verify(tiny_reconstructor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(0, "tiny segmenter"))
        segmenter = Segmenter(run.segmenter, 1)
    values = {"score": 0.6, "probability": 0.5, "map": 0.3, "intensity": 0.6}
    thresholds = {"default": "best-dice", "rules": {"best-dice": {"values": values}}}
    folder = tmp_path_factory.mktemp("bundles") / "detector"
    bundle.save(folder, run, segmenter.state_dict(), _statistics(), _description(parent.anatomy, thresholds), parent)
    return folder


def _statistics() -> dict[str, torch.Tensor]:
    return {"histogram_edges": torch.linspace(0, 1, 82)}


def _description(anatomy: object, thresholds: dict | None = None) -> object:
    from hybriduad.detector.bundle import Description

    return Description(
        anatomy=anatomy,
        direction="axial",
        precision="float32",
        training={"cases": 0},
        identities={},
        thresholds=thresholds or {"default": "", "rules": {}},
    )
