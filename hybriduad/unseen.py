"""Making sure that a model has never seen the cases it is about to be judged on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hybriduad.errors import DataError
from hybriduad.manifest import check_leakage
from hybriduad.types import Case


def check_unseen(cases: Sequence[Case], used: Mapping[str, str], contrasts: Collection[str]) -> dict[str, str]:
    """As :func:`hybriduad.manifest.check_leakage`, but one unreadable image ends nothing.

    Returns the names of the cases of which an image of ``contrasts``, those that the model uses, cannot be read, so
    that nobody can vouch for them, with the reason. Of other contrasts what can be read is looked at.

    Raises:
        LeakageError: some of the readable cases were used to make the model.
    """
    if not used:
        return {}
    try:
        check_leakage(cases, used, contrasts)
    except DataError:
        failed = {}
        readable = []
        for case in cases:
            try:
                check_leakage([case], {}, contrasts)
                readable.append(case)
            except DataError as error:
                failed[case.name] = str(error)
        check_leakage(readable, used, contrasts)
        return failed
    return {}
