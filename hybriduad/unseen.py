"""Making sure that a model has never seen the cases it is about to be judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hybriduad.errors import DataError
from hybriduad.manifest import check_leakage
from hybriduad.types import Case


def check_unseen(cases: Sequence[Case], used: Mapping[str, str]) -> dict[str, str]:
    """As :func:`hybriduad.manifest.check_leakage`, but one unreadable image ends nothing.

    Returns the names of the cases whose images cannot be read, which nobody can vouch for, with the reason.

    Raises:
        LeakageError: some of the readable cases were used to make the model.
    """
    if not used:
        return {}
    try:
        check_leakage(cases, used)
    except DataError:
        failed = {}
        readable = []
        for case in cases:
            try:
                check_leakage([case], {})
                readable.append(case)
            except DataError as error:
                failed[case.name] = str(error)
        check_leakage(readable, used)
        return failed
    return {}
