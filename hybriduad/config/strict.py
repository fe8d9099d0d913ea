"""Frozen pydantic models that refuse unknown keys, and the sentence for an invalid value."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hybriduad.core.errors import ConfigError


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PluginConfig(Strict):
    """The YAML block of a plug-in; ``name`` says which file it is for. Each plug-in subclasses it."""

    name: str

    @property
    def method(self) -> str:
        """What the plug-in does with the paper of it, as a methods section names it; "" where it names none."""
        return ""


class AnomalyConfig(PluginConfig):
    """The block of an anomaly generator; ``weight``: how often it is drawn, relative to the others of the run.

    A weight of 1 is not written: trainings from before there were weights draw the same samples and are continued.
    """

    weight: float = Field(1.0, gt=0, allow_inf_nan=False, exclude_if=lambda weight: weight == 1)


M = TypeVar("M", bound=BaseModel)


def checked(model: type[M], data: Any, where: str) -> M:
    """Validate ``data`` as ``model``.

    Raises:
        ConfigError: one sentence with the dotted key at fault; for an unknown key, the nearest known key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        if first["type"] == "extra_forbidden":
            known = sorted(_siblings(model, first["loc"][:-1]))
            near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
            dotted = ".".join([*(str(part) for part in first["loc"][:-1]), *near])
            mend = f"perhaps {dotted!r} is meant" if near else "remove it"
            raise ConfigError(
                "unknown key", where=where, got=repr(key), expected=f"one of {known}", mend=mend
            ) from error
        raise ConfigError(
            f"bad value for {key!r}", where=where, got=repr(first.get("input")), mend=str(first["msg"])
        ) from error


def _siblings(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in path:
        info = getattr(current, "model_fields", {}).get(str(part))
        if info is None:
            return []
        models = [kind for kind in get_args(info.annotation) if hasattr(kind, "model_fields")]  # of "Block | None"
        current = models[0] if models else info.annotation
    return list(getattr(current, "model_fields", {}))
