"""The built wheel, installed outside the checkout, is whole: code, configs, licence and command."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import hybriduad

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline by the build backend itself, from the files of the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content. A wheel of pure Python is installed by unpacking it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, code: str, cwd: Path) -> str:
    """Run code outside the checkout, where only the unpacked wheel can provide ``hybriduad``."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run the command that the wheel's entry point names."""
    (points,) = installed.glob("hybriduad-*.dist-info/entry_points.txt")
    assert "hybriduad = hybriduad.cli.app:main" in points.read_text()
    code = f"import sys; sys.argv = {['hybriduad', *arguments]!r}; from hybriduad.cli.app import main; main()"
    return run(installed, code, cwd)


def test_holds_what_it_should_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = ROOT / "hybriduad"
    expected = {f"hybriduad/{path.relative_to(package)}" for path in package.rglob("*.py")}
    templates = {path for path in (package / "report" / "templates").iterdir()}
    assert {path.suffix for path in templates} == {".html", ".css", ".js"}
    expected |= {f"hybriduad/report/templates/{path.name}" for path in templates}
    expected |= {f"hybriduad/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    assert expected <= names
    folders = {name.partition("/")[0] for name in names}
    assert folders == {"hybriduad", f"hybriduad-{hybriduad.__version__}.dist-info"}
    assert not [name for name in names if name.endswith((".nii.gz", ".safetensors", ".ckpt", ".png"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = run(installed, "import hybriduad; print(hybriduad.__file__)", tmp_path).strip()
    assert where == str(installed / "hybriduad" / "__init__.py")
    assert "Research use only" in command(installed, tmp_path, "--help")
    shown = yaml.safe_load(command(installed, tmp_path, "show", "restoration"))
    assert shown["model"]["name"] == "ddpm"
    # The configs come from the wheel, not from a checkout beside it.
    folder = run(
        installed, "from hybriduad.config.files import shipped_folder; print(shipped_folder())", tmp_path
    ).strip()
    assert folder == str(installed / "hybriduad" / "configs")


def test_runs_a_tiny_demo_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    """With the shipped configs of the demo, cut to a step of training and a few slices: what falls short is told."""
    overrides = ["train.steps=1", "train.batch=1", "train.precision=float32", "mirror=false"]
    code = f"""
from hybriduad.demo.chain import DemoError, Plan, run_demo
from hybriduad.demo.report import Count
from hybriduad.training import statistics, validation
validation.BATCHES, validation.BATCH, statistics.SLICES = 1, 2, 4
count = Count(1, 1)
plan = Plan(train=count, validation=count, test=count, spacing_mm=(5.0, 5.0, 8.0), overrides={overrides!r})
try:
    run_demo("demo", device="cpu", plan=plan)
except DemoError as error:
    print(error)
"""
    assert "Traceback" not in run(installed, code, tmp_path)
    text = (tmp_path / "demo" / "summary.md").read_text()
    assert "Research use only" in text
    assert len(list((tmp_path / "demo" / "predictions").rglob("*_desc-anomaly_probseg.nii.gz"))) == 2


def test_says_what_the_project_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
    assert "\nLicense-Expression: Apache-2.0\n" in text
    assert "Research use only" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == hybriduad.__version__
    assert citation["license"] == "Apache-2.0"
    assert "END OF TERMS AND CONDITIONS" in (ROOT / "LICENSE").read_text()
