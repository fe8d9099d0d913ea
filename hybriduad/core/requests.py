"""What a folder was asked for: whether a request may go on there, and in which entries two requests differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hybriduad.core.errors import ConfigError

NAMED, LONGEST = 3, 120
"""How many differences of two requests a sentence names, and the length from which a value is left out."""


def refuse_strangers(folder: Path, own: Callable[[Path], bool] = lambda entry: False) -> None:
    """Refuse an output folder that holds anything but what is ``own``; one that is empty or not there will do.

    Raises:
        ConfigError: it holds something else.
    """
    if folder.exists() and not all(own(entry) for entry in sorted(folder.iterdir())):
        raise ConfigError("output folder holds something else", where=folder, mend="name an empty or new folder")


def is_another(folder: Path, name: str, request: Mapping[str, Any], what: str, overwrite: bool) -> bool:
    """Whether the work of another request lies in a folder, which ``overwrite`` allows to replace.

    Args:
        folder: the output folder, which need not be there.
        name: its file that holds the request.
        request: what is asked for now.
        what: what the folder holds, for the error: "blind spots".
        overwrite: replace the work of another request, or of one that cannot be read.

    Raises:
        ConfigError: the folder holds something else, or without ``overwrite`` the work of another request or a request
            that cannot be read.
    """
    path = folder / name
    if not path.is_file():
        refuse_strangers(folder)
        return False
    try:
        asked = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        if overwrite:
            return True
        raise ConfigError("damaged record", where=path, got=error, mend="--overwrite, or delete the folder") from error
    now = json.loads(json.dumps(request))
    if asked != now and not overwrite:
        mend = "choose another folder, or --overwrite"
        raise ConfigError(f"other {what} in the same place", where=folder, got=difference(asked, now), mend=mend)
    return asked != now


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In which entries two requests differ, as dotted keys with the values there and now; long values only by name."""
    left, right = _flat(before), _flat(now)
    changed = [key for key in sorted({*left, *right}) if left.get(key) != right.get(key)]
    named = [f"{key} {left.get(key, 'unset')} there and {right.get(key, 'unset')} now" for key in changed[:NAMED]]
    named = [text if len(text) < LONGEST else f"another {key}" for key, text in zip(changed, named, strict=False)]
    return ", ".join(named) + (f", and {len(changed) - NAMED} more" if len(changed) > NAMED else "")


def _flat(nested: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(nested, Mapping) or not nested:
        return {path: nested}
    parts = ((f"{path}.{key}" if path else str(key), value) for key, value in nested.items())
    return {key: value for name, inner in parts for key, value in _flat(inner, name).items()}
