"""The import direction, read from every module: only from lower levels, or beside it without a cycle."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hybriduad"
LEVELS = {
    0: "errors types rng plugins",
    1: "config config_files nifti volumes manifest splits metrics losses scoring pictures phantom anomalies "
    "reconstructors datasets",
    2: "preprocess prepared_cache model_grid brain brain_surface augmentation segmenter unseen contents",
    3: "detector slices anomaly_pictures",
    4: "bundle tasks training training_data workshop reference_statistics prediction_files",
    5: "fitting prediction case_detector description",
    6: "calibration calibration_rules evaluation evaluation_case evaluation_comparison evaluation_figures "
    "evaluation_pictures evaluation_tables ground_truth histogram_files benchmark benchmark_networks "
    "benchmark_report benchmark_scans",
    7: "doctor demo demo_report",
    8: "cli cli_options cli_tools __main__",
}
"""Modules and plug-in or package folders by level; a new module is given its level here."""
LEVEL_OF = {name: level for level, names in LEVELS.items() for name in names.split()}
ONLY_USERS = {"nibabel": {"nifti", "volumes"}, "SimpleITK": {"preprocess"}, "torchio": {"augmentation"}}
"""Third-party package -> the modules that may import it."""
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

Graph = Mapping[str, set[str]]


def module_names(folder: Path) -> dict[str, Path]:
    """Dotted name below the package -> file; ``metrics/__init__.py`` is ``metrics``, the package's own is left out."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def imports(source: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(module, names taken from it) of every import statement, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: write it absolute"
            yield str(node.module), tuple(alias.name for alias in node.names)


def internal_imports(source: str, known: set[str]) -> set[str]:
    """The modules of the package that ``source`` imports."""
    found = set()
    for module, names in imports(source):
        if module != "hybriduad" and not module.startswith("hybriduad."):
            continue
        base = module.removeprefix("hybriduad").removeprefix(".")
        inside = {f"{base}.{name}".removeprefix(".") for name in names} & known
        # "from package import name": a module of that name, or something that the package itself holds.
        found |= inside or ({base} & known)
    return found


def graph_of(folder: Path) -> dict[str, set[str]]:
    modules = module_names(folder)
    return {name: internal_imports(path.read_text(), set(modules)) - {name} for name, path in modules.items()}


def level(module: str) -> int:
    return LEVEL_OF[module.partition(".")[0]]


def upward(graph: Graph) -> list[str]:
    return [
        f"{module} (level {level(module)}) imports {other} (level {level(other)})"
        for module, others in sorted(graph.items())
        for other in sorted(others)
        if level(other) > level(module)
    ]


def test_every_module_has_a_level() -> None:
    assert sorted({name.partition(".")[0] for name in module_names(PACKAGE)} - set(LEVEL_OF)) == []


def test_no_module_imports_upward() -> None:
    graph = graph_of(PACKAGE)
    assert "manifest" in graph["training_data"]  # the reader does see imports
    assert upward(graph) == []


def test_no_import_cycle() -> None:
    # Of a package's __init__ and its own files only one direction is an import of the other by name.
    try:
        tuple(graphlib.TopologicalSorter(graph_of(PACKAGE)).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    "source",
    [
        "from hybriduad import prediction",
        "from hybriduad.prediction import predict_case",
        "import hybriduad.prediction",
        "def f():\n    from hybriduad.prediction import predict_case",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hybriduad import prediction as p",
    ],
)
def test_an_upward_import_is_caught(source: str, tmp_path: Path) -> None:
    (tmp_path / "detector.py").write_text(source)
    (tmp_path / "prediction.py").write_text("")
    assert upward(graph_of(tmp_path)) == ["detector (level 3) imports prediction (level 5)"]


def test_a_cycle_is_caught(tmp_path: Path) -> None:
    (tmp_path / "volumes.py").write_text("from hybriduad import config")
    (tmp_path / "config.py").write_text("from hybriduad import volumes")
    assert upward(graph_of(tmp_path)) == []
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph_of(tmp_path)).prepare()


@pytest.mark.parametrize(("package", "allowed"), ONLY_USERS.items())
def test_nobody_else_uses(package: str, allowed: set[str]) -> None:
    users = {
        name
        for name, path in module_names(PACKAGE).items()
        for module, _ in imports(path.read_text())
        if module.partition(".")[0] == package
    }
    assert users == allowed


def test_no_plugin_is_imported_by_name() -> None:
    """The folder is the registry: outside it a plug-in is loaded by name only, its underscored helpers aside."""
    named = [
        f"{module} imports {other}"
        for module, others in graph_of(PACKAGE).items()
        for other in others
        for kind in ("anomalies", "reconstructors", "datasets")
        if other.startswith(f"{kind}.") and not other.startswith(f"{kind}._") and not module.startswith(f"{kind}.")
    ]
    assert named == []


def test_files_stay_small() -> None:
    sizes = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path.as_posix(): size for path, size in sizes.items() if size > 300} == {}


def test_no_module_is_called_utils() -> None:
    assert [path.name for path in PACKAGE.rglob("*util*.py")] + [path.name for path in PACKAGE.rglob("*helper*")] == []


def offences(source: str) -> list[str]:
    """What no file of the package may hold: print(), pickle, a swallowed exception, code loaded from checkpoints.

    An exception of any type is not swallowed where it is raised again, or where ``reason_of`` says it of a case.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "eval", "exec"):
            found.append(f"{node.func.id}() in line {node.lineno}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
            safe = {"torch.load": "weights_only=True"}.get(ast.unparse(node.func), "allow_pickle=False")
            if safe not in [ast.unparse(keyword) for keyword in node.keywords]:
                found.append(f"{ast.unparse(node.func)} without {safe} in line {node.lineno}")
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            told = any(isinstance(inner, ast.Name) and inner.id == "reason_of" for inner in ast.walk(node))
            if broad and not told and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                found.append(f"swallowed exception in line {node.lineno}")
    return found + [
        f"import of {module}" for module, _ in imports(source) if module.partition(".")[0] in FORBIDDEN_IMPORTS
    ]


def test_no_print_no_pickle_no_swallowed_exception() -> None:
    found = {name: offences(path.read_text()) for name, path in module_names(PACKAGE).items()}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "import numpy as np\nnp.load('x')",
        "try:\n    f()\nexcept Exception:\n    pass",
    ],
)
def test_an_offence_is_caught(source: str) -> None:
    assert len(offences(source)) == 1


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_import_is_light() -> None:
    code = "import hybriduad, sys; print(sorted({'torch', 'numpy', 'pydantic', 'yaml'} & set(sys.modules)))"
    assert run(code) == "[]"


def test_command_line_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from hybriduad.cli import app;"
        "runner = CliRunner();"
        "results = [runner.invoke(app, [*verb, '--help']) for verb in ([], ['predict'], ['fit-detector'], ['show'])];"
        "assert all(one.exit_code == 0 for one in results);"
        "print(sorted({'torch', 'numpy', 'yaml', 'lightning', 'diffusers', 'matplotlib'} & set(sys.modules)))"
    )
    assert run(code) == "[]"
