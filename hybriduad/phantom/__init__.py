"""Brains that the package makes itself: ``hybriduad.phantom.write_cohort``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybriduad.phantom.cohort import write_cohort as write_cohort

__all__ = ["write_cohort"]


def __getattr__(name: str) -> Any:
    if name != "write_cohort":
        raise AttributeError(f"module 'hybriduad.phantom' has no attribute {name!r}; it has {__all__}")
    from hybriduad.phantom import cohort  # only when it is asked for: it reads the template

    return cohort.write_cohort
