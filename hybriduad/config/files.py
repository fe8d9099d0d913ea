"""Run configs as files: shipped configs by name, others by path, changed by ``dotted.key=value``."""

from __future__ import annotations

import copy
import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from hybriduad.config.benchmarks import BenchmarkRun
from hybriduad.config.runs import DetectorRun, ReconstructorRun
from hybriduad.config.strict import checked
from hybriduad.core.errors import ConfigError

RUNS: dict[str, type[BaseModel]] = {
    "reconstructor": ReconstructorRun,
    "detector": DetectorRun,
    "benchmark": BenchmarkRun,
}
"""Kind of a run config -> its model."""


def shipped_folder() -> Path:
    """Where the shipped configs are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def shipped() -> list[str]:
    """The names of the shipped configs."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def load(config: str | Path, overrides: list[str] | None = None, kind: str | None = None) -> Any:
    """Read a run config: a path, or the name of a shipped config; ``overrides`` are ``dotted.key=value`` in YAML.

    Raises:
        ConfigError: no such config, not YAML, unknown key or bad value, or another ``kind`` than asked for.
    """
    path = Path(config)
    if path.suffix not in {".yaml", ".yml"}:
        path = shipped_folder() / f"{config}.yaml"
        if not path.is_file():
            near = difflib.get_close_matches(str(config), shipped(), n=1)
            mend = f"perhaps {near[0]!r} is meant" if near else "or give a path that ends in .yaml"
            raise ConfigError("unknown config", got=repr(str(config)), expected=f"one of {shipped()}", mend=mend)
    data = _read(path)
    try:
        return parse(override(data, overrides or []), str(path), kind)
    except ConfigError:
        # The error names the file if the file is wrong by itself, else the overrides.
        parse(data, str(path), kind)
        options = " ".join(f"--set {assignment}" for assignment in overrides or [])
        return parse(override(data, overrides or []), options, kind)


def load_resolved(path: Path, kind: str) -> Any:
    """The resolved config beside an output; options of earlier versions that are gone are translated.

    Raises:
        ConfigError: as :func:`load`.
    """
    return parse(_migrated(_read(path)), str(path), kind)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError("cannot read config", where=path, got=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("config is not YAML", where=path, got=" ".join(str(error).split())) from error


def _migrated(data: Any) -> Any:
    residual = data.get("residual") if isinstance(data, dict) else None
    if isinstance(residual, dict) and (voxels := residual.pop("median_voxels", None)) is not None:
        residual["median_mm"] = 2.3 * voxels if voxels > 1 else 0.0  # of 2.3 mm, the pixels of the shipped grid
    return data


def parse(data: Any, where: str, kind: str | None = None) -> Any:
    """Check a mapping as the run config that its ``kind`` names.

    Raises:
        ConfigError: as :func:`load`.
    """
    if not isinstance(data, dict) or data.get("kind") not in list(RUNS):
        stated = data.get("kind") if isinstance(data, dict) else type(data).__name__
        raise ConfigError("config without a known kind", where=where, got=stated, expected=f"kind: one of {list(RUNS)}")
    if kind is not None and data["kind"] != kind:
        raise ConfigError("config of the wrong kind", where=where, got=data["kind"], expected=kind)
    return checked(RUNS[data["kind"]], data, where)


def override(data: Any, assignments: list[str]) -> Any:
    """Apply ``dotted.key=value`` assignments (values in YAML) to a nested mapping; returns a new mapping.

    Raises:
        ConfigError: an assignment without ``=``, through something that is no mapping, or of no YAML.
    """
    # Not by a library: pydantic checks the result but knows no dotted keys, and what does (OmegaConf, Hydra,
    # jsonargparse) is a dependency more, with interpolation and merging that a flat config is meant not to have.
    result = copy.deepcopy(data)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError("bad override", got=repr(assignment), expected="dotted.key=value")
        *path, last = dotted.strip().split(".")
        target = result
        for part in path:
            target = target.setdefault(part, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise ConfigError("override through a value that is no mapping", got=repr(dotted))
        try:
            target[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError("override whose value is not YAML", got=repr(assignment)) from error
    return result


def dump(run: BaseModel) -> str:
    """The resolved config as YAML, readable by :func:`load`."""
    return yaml.safe_dump(run.model_dump(mode="json", serialize_as_any=True), sort_keys=False)
