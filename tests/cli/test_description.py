"""What configs and bundles say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hybriduad.cli.description import describe
from hybriduad.config import files as configs
from hybriduad.core.errors import BundleError
from hybriduad.detector import bundle
from hybriduad.detector.loading import load_reconstructor


def test_a_config_comes_back_as_itself(tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(describe("restoration", ["train.steps=7"]))
    assert configs.load(path) == configs.load("restoration", ["train.steps=7"])


def test_a_folder_named_like_a_shipped_config_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "synthetic").mkdir()
    monkeypatch.chdir(tmp_path)
    assert yaml.safe_load(describe("synthetic"))["kind"] == "detector"


def test_a_bundle_without_digests_of_its_scans(tiny_reconstructor: Path, tmp_path: Path) -> None:
    source = bundle.verify(tiny_reconstructor)
    description = bundle.Description(
        anatomy=source.anatomy,
        direction="axial",
        precision="float32",
        training={"cases": 2},
        identities={"a" * 64: "fit", "b" * 64: "fit", "c" * 64: "calibrate"},
    )
    bundle.save(tmp_path / "b", source.run, load_reconstructor(source).state_dict(), {}, description)
    text = describe(tmp_path / "b")
    shown = yaml.safe_load(text)
    assert shown["identities"] == {"fit": 2, "calibrate": 1}
    assert "a" * 64 not in text
    assert shown["training"] == {"cases": 2}
    assert shown["parts"] == ["config.yaml", "statistics.safetensors", "weights.safetensors"]
    assert configs.parse(shown["config"], "shown") == source.run


def test_a_folder_without_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle in"):
        describe(tmp_path)
