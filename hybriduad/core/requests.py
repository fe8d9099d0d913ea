"""The differences between two requests for the same folder, for the error that refuses the second request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMED, LONGEST = 3, 120
"""How many differences of two requests a sentence names, and the length from which a value is left out."""


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
