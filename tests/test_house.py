"""The import direction, read from every module: only from lower levels, or beside it without a cycle."""

from __future__ import annotations

import ast
import graphlib
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hybriduad.core.plugins import FOLDERS

PACKAGE = Path(__file__).parent.parent / "hybriduad"
LEVELS = {
    0: "core",
    1: "datasets metrics",
    2: "config",
    3: "scan anomalies networks",
    4: "cohort reconstructors",
    5: "detector phantom",
    6: "training prediction",
    7: "evaluation speed exchange",
    8: "benchmark cli demo report",
}
"""The rooms by level: a room imports only from lower levels."""
LEVEL_OF = {room: level for level, rooms in LEVELS.items() for room in rooms.split()}
APPS = LEVELS[8].split()
"""Rooms that users call: the command line alone imports the others, and inside its verbs."""
ONLY_USERS = {
    "nibabel": {"scan.nifti", "scan.volumes"},
    "SimpleITK": {"scan.resampling", "scan.registration", "scan.bias_field"},
    "torchio": {"training.augmentation"},
    "lightning": {"training.loop", "training.tasks"},
}
"""Third-party package -> the modules that may import it."""
LIMIT, MEDIAN = 400, 150
"""Lines of the largest file, and of the middle one."""
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

Graph = Mapping[str, set[str]]


def module_names(folder: Path) -> dict[str, Path]:
    """Dotted name below the package -> file; ``metrics/__init__.py`` is ``metrics``, the package's own is left out."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            modules[name] = path
    return modules


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
    imported = set()
    for module, names in imports(source):
        if module != "hybriduad" and not module.startswith("hybriduad."):
            continue
        base = module.removeprefix("hybriduad").removeprefix(".")
        inside = {f"{base}.{name}".removeprefix(".") for name in names} & known
        # "from package import name": a module of that name, or something that the package itself holds.
        imported |= inside or ({base} & known)
    return imported


def graph_of(folder: Path) -> dict[str, set[str]]:
    modules = module_names(folder)
    return {name: internal_imports(path.read_text(), set(modules)) - {name} for name, path in modules.items()}


def room(module: str) -> str:
    return module.partition(".")[0]


def allowed(module: str, imported: str) -> bool:
    """Whether ``module`` may import ``imported``: of its own room, of a lower level, or as the command line an app."""
    if room(module) in ("__main__", room(imported)):
        return True
    if room(module) == "cli" and room(imported) in APPS:
        return True
    return LEVEL_OF[room(imported)] < LEVEL_OF[room(module)]


def violations(graph: Graph) -> list[str]:
    return [
        f"{module} (level {LEVEL_OF[room(module)]}) imports {imported} (level {LEVEL_OF[room(imported)]})"
        for module, imports_of in sorted(graph.items())
        for imported in sorted(imports_of)
        if not allowed(module, imported)
    ]


def test_every_module_lies_in_a_room() -> None:
    assert sorted({room(name) for name in module_names(PACKAGE)} - {*LEVEL_OF, "__main__"}) == []
    assert sorted(set(LEVEL_OF) - {room(name) for name in module_names(PACKAGE)}) == []


def test_rooms_import_only_from_lower_levels() -> None:
    graph = graph_of(PACKAGE)
    assert "cohort.manifest" in graph["training.data"]  # the reader does see imports
    assert violations(graph) == []


def test_no_import_cycle() -> None:
    # Of a package's __init__ and its own files only one direction is an import of the other by name.
    try:
        tuple(graphlib.TopologicalSorter(graph_of(PACKAGE)).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def build(folder: Path, **sources: str) -> Graph:
    """The graph of a package with these modules, ``room__module`` each."""
    for name, source in sources.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return graph_of(folder)


@pytest.mark.parametrize(
    "source",
    [
        "from hybriduad.prediction import case",
        "from hybriduad.prediction.case import predict_case",
        "import hybriduad.prediction.case",
        "def f():\n    from hybriduad.prediction.case import predict_case",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hybriduad.prediction import case as p",
    ],
)
def test_an_upward_import_is_caught(source: str, tmp_path: Path) -> None:
    graph = build(tmp_path, detector__bundle=source, prediction__case="")
    assert violations(graph) == ["detector.bundle (level 5) imports prediction.case (level 6)"]


def test_a_sideways_import_is_caught(tmp_path: Path) -> None:
    graph = build(tmp_path, training__loop="from hybriduad.prediction import case", prediction__case="")
    assert violations(graph) == ["training.loop (level 6) imports prediction.case (level 6)"]


def test_a_cycle_is_caught(tmp_path: Path) -> None:
    graph = build(tmp_path, scan__a="from hybriduad.scan import b", scan__b="from hybriduad.scan import a")
    assert violations(graph) == []
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(("package", "users_named"), ONLY_USERS.items())
def test_nobody_else_uses(package: str, users_named: set[str]) -> None:
    users = {
        name
        for name, path in module_names(PACKAGE).items()
        for module, _ in imports(path.read_text())
        if module.partition(".")[0] == package
    }
    assert users == users_named


def test_no_plugin_is_imported_by_name() -> None:
    """The folder is the registry: outside it a plug-in is loaded by name only, its underscored helpers aside."""
    named = [
        f"{module} imports {imported}"
        for module, imports_of in graph_of(PACKAGE).items()
        for imported in imports_of
        for kind in (folder.replace("/", ".") for folder in FOLDERS.values())
        if imported.startswith(f"{kind}.")
        and not imported.startswith(f"{kind}._")
        and not module.startswith(f"{kind}.")
    ]
    assert named == []


def test_files_stay_small() -> None:
    sizes = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path.as_posix(): size for path, size in sizes.items() if size > LIMIT} == {}
    assert statistics.median(sizes.values()) < MEDIAN


def test_file_names_do_not_repeat_their_room() -> None:
    assert [name for name in module_names(PACKAGE) if "." in name and name.split(".")[1].startswith(room(name))] == []


def test_nothing_escapes_the_formatter() -> None:
    assert [path.name for path in PACKAGE.rglob("*.py") if "# fmt: skip" in path.read_text()] == []


def test_no_module_is_called_utils() -> None:
    assert [path.name for path in PACKAGE.rglob("*util*.py")] + [path.name for path in PACKAGE.rglob("*helper*")] == []


PAGE = PACKAGE.parent / "docs" / "architecture.md"


def missing(page: str, root: Path) -> list[str]:
    """What a page names and ``root`` lacks: files, folders, and functions said to be in a file.

    Of ``folder/<name>.py`` the folder must be there, or a module of its name.
    """
    absent = []
    for path in re.findall(r"`((?:hybriduad|tests|scripts|configs|docs)/[^`]*)`", page):
        place = root / path.partition("<")[0]
        if not place.exists() and not ("<" in path and place.with_suffix(".py").is_file()):
            absent.append(path)
    for path, function in re.findall(r"`([^`]+\.py)` `(\w+)`", page):
        if (root / path).is_file() and not re.search(rf"^ *def {function}\(", (root / path).read_text(), re.MULTILINE):
            absent.append(f"{function} of {path}")
    return absent


def test_the_architecture_page_names_every_room_at_its_level_and_only_what_there_is() -> None:
    page = PAGE.read_text()
    rooms = {name: int(level) for name, level in re.findall(r"^\| `(\w+)` \| (\d) \|", page, re.MULTILINE)}
    assert rooms == LEVEL_OF
    assert len(re.findall(r"`[^`]+\.py` `\w+`", page)) >= 14
    assert missing(page, PACKAGE.parent) == []


@pytest.mark.parametrize(
    "name", ["hybriduad/scan/nothing.py", "hybriduad/nothing/<name>.py", "hybriduad/scan/grid.py` `nothing"]
)
def test_a_name_that_is_not_there_is_caught(name: str) -> None:
    assert len(missing(f"see `{name}`", PACKAGE.parent)) == 1


def offences(source: str) -> list[str]:
    """What no file of the package may hold: print(), pickle, a swallowed exception, code loaded from checkpoints.

    An exception of any type is not swallowed where it is raised again, or where ``reason_of`` says it of a case.
    """
    breaches = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "eval", "exec"):
            breaches.append(f"{node.func.id}() in line {node.lineno}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
            safe = {"torch.load": "weights_only=True"}.get(ast.unparse(node.func), "allow_pickle=False")
            if safe not in [ast.unparse(keyword) for keyword in node.keywords]:
                breaches.append(f"{ast.unparse(node.func)} without {safe} in line {node.lineno}")
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            told = any(isinstance(inner, ast.Name) and inner.id == "reason_of" for inner in ast.walk(node))
            if broad and not told and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                breaches.append(f"swallowed exception in line {node.lineno}")
    return breaches + [
        f"import of {module}" for module, _ in imports(source) if module.partition(".")[0] in FORBIDDEN_IMPORTS
    ]


def test_no_print_no_pickle_no_swallowed_exception() -> None:
    breaches = {name: offences(path.read_text()) for name, path in module_names(PACKAGE).items()}
    assert {name: what for name, what in breaches.items() if what} == {}


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
        "import sys; from typer.testing import CliRunner; from hybriduad.cli.app import app;"
        "runner = CliRunner();"
        "results = [runner.invoke(app, [*verb, '--help']) for verb in ([], ['predict'], ['fit-detector'], ['show'])];"
        "assert all(result.exit_code == 0 for result in results);"
        "print(sorted({'torch', 'numpy', 'yaml', 'lightning', 'diffusers', 'matplotlib'} & set(sys.modules)))"
    )
    assert run(code) == "[]"
