"""What the doctor looks at."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch

from hybriduad.cli import doctor
from hybriduad.cli.doctor import examine


def by_name(*bundles: Path) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in examine(bundles)}


def test_a_sound_installation() -> None:
    findings = by_name()
    assert all(finding.good for finding in findings.values()), findings
    assert findings["torch"].value == metadata.version("torch")
    assert findings["torch threads"].value == str(torch.get_num_threads())
    assert "Research use only" in findings["intended use"].value
    assert {"memory", "device", "bfloat16", "processor cores", "shipped configs", "brain extraction"} <= set(findings)
    assert "restoration" in findings["shipped configs"].value
    assert "pytest" not in findings  # no extra


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["torch>=2", "surely-not-there>=1", "x; extra == 'dev'"])
    findings = by_name()
    assert findings["surely-not-there"] == doctor.Finding("surely-not-there", "not installed", good=False)
    assert findings["torch"].good
    assert "x" not in findings


def test_a_package_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "import_module", fail)
    finding = by_name()["torchvision"]
    assert not finding.good
    assert "does not import: operator torchvision::nms does not exist" in finding.value


def test_bundles(tiny_detector: Path, tiny_reconstructor: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_reconstructor, damaged)
    (damaged / "config.yaml").write_text("kind: reconstructor\n")
    findings = by_name(tiny_detector, tiny_reconstructor, damaged)
    assert "thresholds: best-dice" in findings[f"bundle {tiny_detector}"].value
    assert "thresholds: none, so no masks" in findings[f"bundle {tiny_reconstructor}"].value
    assert not findings[f"bundle {damaged}"].good
    assert "damaged or changed file in bundle" in findings[f"bundle {damaged}"].value
