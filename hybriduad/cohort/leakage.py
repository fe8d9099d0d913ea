"""Scans and people behind a model, recognised by digests, and cases that it has never seen."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence

from hybriduad.cohort.splits import person_of
from hybriduad.core.errors import DataError, LeakageError, reason_of
from hybriduad.core.types import Case
from hybriduad.datasets._layout import CONTRASTS

log = logging.getLogger(__name__)

Identity = tuple[str, str]
"""(dataset, case name)."""


def identity_digests(case: Case, contrasts: Collection[str] | None = None) -> dict[str, str | list[str]]:
    """A case without its name, as a bundle recognises it: ``"subject"``, the sha256 of data set and subject or, of
    phantoms, label map (:func:`hybriduad.cohort.splits.person_of`), and ``"voxels"``, the sha256 of the canonical
    voxels of each image, in the order of their contrasts' names.

    ``contrasts`` are those that a bundle uses: an unreadable image of another contrast is then left out.

    Raises:
        DataError: an image cannot be read, of those ``contrasts`` where they are given.
    """
    return {"voxels": _voxels(case, contrasts), "subject": _person(case)}


def _person(case: Case) -> str:
    return hashlib.sha256(json.dumps(person_of(case)).encode()).hexdigest()


def _voxels(case: Case, contrasts: Collection[str] | None) -> list[str]:
    from hybriduad.scan.volumes import voxel_digest  # nibabel takes a moment to import, and most callers only split

    digests = []
    case.check(CONTRASTS if contrasts is None else (*contrasts, case.reference))
    for contrast in sorted(case.images):
        try:
            digests.append(voxel_digest(case.images[contrast]))
        except DataError:
            if contrasts is None or contrast in {*contrasts, case.reference}:
                raise
    return digests


def check_leakage(cases: Sequence[Case], used: Mapping[str, str], contrasts: Collection[str] | None = None) -> None:
    """Make sure that none of ``cases`` is among ``used``, digests of :func:`identity_digests` with the role of each.

    A scan is known by its voxels, so also when renamed, moved to another data set or compressed again, and a person by
    data set and subject, so also in another session. Equal subjects of different data sets are different people.
    Every image that can be read is looked at; ``contrasts``, by default all, are those that must be readable.

    Raises:
        LeakageError: some are; the sentence names them with their role and how they were recognised.
        DataError: an image cannot be read, of those ``contrasts`` where they are given.
    """
    leaks = []
    for case in cases:
        if role := used.get(_person(case)):
            leaks.append(f"{case.name} of {case.dataset!r} (same subject, role {role})")
        elif role := next((used[digest] for digest in _voxels(case, contrasts) if digest in used), None):
            leaks.append(f"{case.name} of {case.dataset!r} (same voxels, role {role})")
    if leaks:
        raise LeakageError(
            f"{len(leaks)} of {len(cases)} cases were already used to make the model",
            got=", ".join(leaks),
            mend="leave them out, or give cohorts of different people different values of dataset",
        )


def identities(cases: Sequence[Case], role: str, contrasts: Collection[str] | None = None) -> dict[str, str]:
    """Digest -> role for the voxels and the subject of each case; no names.

    ``contrasts``, by default all, are those that must be readable; of other contrasts readable images are kept.

    Raises:
        DataError: an image of these cannot be read.
    """
    roles: dict[str, str] = {}
    for case in cases:
        digests = identity_digests(case, contrasts)
        for digest in [digests["subject"], *digests["voxels"]]:
            roles[str(digest)] = role
    return roles


def check_unseen(cases: Sequence[Case], used: Mapping[str, str], contrasts: Collection[str]) -> dict[Identity, str]:
    """As :func:`hybriduad.cohort.leakage.check_leakage`, but an unreadable image fails its case alone.

    Returns, by (dataset, name), the reason for every case with an unreadable image of ``contrasts``, those that the
    model uses: leakage cannot be ruled out there. Of other contrasts the readable images are checked.

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
        except Exception as error:  # whatever it is, it concerns this case alone
            failed[case.dataset, case.name] = reason_of(error)
            log.debug("traceback of %s", case.name, exc_info=True)
            continue
        readable.append(case)
    if leaked:
        check_leakage(readable, used, contrasts)  # raises an error that names all of them
    return failed
