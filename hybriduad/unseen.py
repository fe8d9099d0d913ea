"""Making sure that a model has never seen the cases it is about to be judged on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from hybriduad.errors import LeakageError, reason_of
from hybriduad.manifest import check_leakage
from hybriduad.types import Case

log = logging.getLogger(__name__)

Identity = tuple[str, str]
"""(dataset, case name)."""


def check_unseen(cases: Sequence[Case], used: Mapping[str, str], contrasts: Collection[str]) -> dict[Identity, str]:
    """As :func:`hybriduad.manifest.check_leakage`, but one unreadable image ends nothing.

    Returns (dataset, name) of the cases of which an image of ``contrasts``, those that the model uses, cannot be read,
    so that nobody can vouch for them, with the reason. Of other contrasts what can be read is looked at.

    Raises:
        LeakageError: some of the readable cases were used to make the model.
    """
    if not used:
        return {}
    failed: dict[Identity, str] = {}
    readable, leaked = [], False
    for case in cases:
        try:
            check_leakage([case], used, contrasts)
        except LeakageError:
            leaked = True
        except Exception as error:  # whatever it is, it is of this case
            failed[case.dataset, case.name] = reason_of(error)
            log.debug("traceback of %s", case.name, exc_info=True)
            continue
        readable.append(case)
    if leaked:
        check_leakage(readable, used, contrasts)  # of all of them in one sentence
    return failed
