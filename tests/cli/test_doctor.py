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
    found = by_name()
    assert all(finding.good for finding in found.values()), found
    assert found["torch"].value == metadata.version("torch")
    assert found["torch threads"].value == str(torch.get_num_threads())
    assert "Research use only" in found["intended use"].value
    assert {"memory", "device", "bfloat16", "processor cores", "shipped configs"} <= set(found)
    assert "cddpm-small" in found["shipped configs"].value
    assert "pytest" not in found  # no extra


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["torch>=2", "surely-not-there>=1", "x; extra == 'dev'"])
    found = by_name()
    assert found["surely-not-there"] == doctor.Finding("surely-not-there", "not installed", good=False)
    assert found["torch"].good
    assert "x" not in found


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
    found = by_name(tiny_detector, tiny_reconstructor, damaged)
    assert "thresholds: best-dice" in found[f"bundle {tiny_detector}"].value
    assert "thresholds: none, so no masks" in found[f"bundle {tiny_reconstructor}"].value
    assert not found[f"bundle {damaged}"].good
    assert "damaged or changed file in bundle" in found[f"bundle {damaged}"].value
