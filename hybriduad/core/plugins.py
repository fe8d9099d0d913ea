"""The folder is the registry: plug-in ``name`` of a kind is the file ``hybriduad/<kind>/<name>.py``."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType
from typing import Literal

from hybriduad.core.errors import ConfigError

Kind = Literal["anomalies", "reconstructors", "datasets"]
KINDS: tuple[Kind, ...] = ("anomalies", "reconstructors", "datasets")


def names(kind: Kind) -> list[str]:
    """The plug-ins of a kind, sorted: every module in its folder whose name has no leading underscore."""
    package = importlib.import_module(f"hybriduad.{kind}")
    return sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))


def load(kind: Kind, name: str) -> ModuleType:
    """Import plug-in ``name`` of ``kind``.

    Raises:
        ConfigError: no such file; the message lists the plug-ins there are and names the nearest.
    """
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        mend = f"perhaps {near[0]} is meant" if near else f"add hybriduad/{kind}/{name}.py or choose one of the list"
        raise ConfigError(f"unknown plug-in of kind {kind}", got=repr(name), expected=f"one of {known}", mend=mend)
    return importlib.import_module(f"hybriduad.{kind}.{name}")
