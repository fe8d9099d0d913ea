"""The folder is the registry: plug-in ``name`` of a kind is the file ``<name>.py`` in the folder of that kind.

A hyphen of the name is an underscore of the file: rule ``best-dice`` is ``hybriduad/evaluation/rules/best_dice.py``.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Literal

from hybriduad.core.errors import ConfigError

Kind = Literal["anomalies", "reconstructors", "datasets", "rules"]
FOLDERS: Mapping[Kind, str] = {
    "anomalies": "anomalies",
    "reconstructors": "reconstructors",
    "datasets": "datasets",
    "rules": "evaluation/rules",
}
"""Kind -> its folder inside the package."""
KINDS: tuple[Kind, ...] = tuple(FOLDERS)


def names(kind: Kind) -> list[str]:
    """The plug-ins of a kind, sorted: every module in its folder whose name has no leading underscore."""
    package = importlib.import_module(_package(kind))
    files = (info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))
    return sorted(file.replace("_", "-") for file in files)


def load(kind: Kind, name: str) -> ModuleType:
    """Import plug-in ``name`` of ``kind``.

    Raises:
        ConfigError: no such file; the message lists the plug-ins there are and names the nearest.
    """
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        file = f"hybriduad/{FOLDERS[kind]}/{name.replace('-', '_')}.py"
        mend = f"perhaps {near[0]} is meant" if near else f"add {file} or choose one of the list"
        raise ConfigError(f"unknown plug-in of kind {kind}", got=repr(name), expected=f"one of {known}", mend=mend)
    return importlib.import_module(f"{_package(kind)}.{name.replace('-', '_')}")


def _package(kind: Kind) -> str:
    return f"hybriduad.{FOLDERS[kind].replace('/', '.')}"
