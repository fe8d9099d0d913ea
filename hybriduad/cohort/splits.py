"""Splits and folds of a cohort by subject.

Import these from :mod:`hybriduad.cohort.manifest`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast, get_args

from hybriduad.core.errors import ConfigError
from hybriduad.core.rng import fold
from hybriduad.core.types import Case, Split

Subject = tuple[str, str]
"""(dataset, subject): a person."""
ANATOMY = "labelmap"
"""The attribute of phantoms that says whose label map they have their anatomy from."""


def person_of(case: Case) -> Subject:
    """Whose anatomy a case shows: its subject's, and of phantoms that of their label map, which several may share."""
    head = case.attributes.get(ANATOMY, "")
    return (case.dataset, f"{ANATOMY} {head}" if head else case.subject)


def split_cases(
    cases: Sequence[Case],
    shares: Mapping[str, int] | Mapping[str, float],
    seed: int,
    stratify: Sequence[str] | None = None,
    fold: tuple[int, int] | None = None,
) -> list[Case]:
    """The cases, in their order, each with its ``split``, drawn by subject: sessions of one person stay together, and
    phantoms of one person's label map (:func:`person_of`).

    ``shares`` gives *subjects* for train, validation and test, all as counts (``{"train": 32, "test": 10}``) or all
    as fractions (``{"train": 0.8, "test": 0.2}``); who is left over gets the split "". ``stratify`` names
    attributes, or ``dataset`` or ``health``, by default site and health; each combination of their values is shared
    out in proportion by largest remainders, and the totals are exact. With ``fold`` (k, n), the k-th of n folds
    (from 1) is the test part and ``shares`` are of the others. A pure function of the seed and of who is in the
    cohort, whatever the order of ``cases``.

    Raises:
        ConfigError: unknown split names, counts and fractions mixed, negative, or more than there are; a column of
            ``stratify`` that no case has; an impossible fold, or a share for the test part beside a fold.
    """
    people = _strata(cases, stratify)
    tested: dict[Subject, str] = {}
    if fold is not None:
        number, count = fold
        if not 1 <= number <= count or "test" in shares:
            raise ConfigError(
                "bad fold",
                got=f"{number}/{count} with shares of {sorted(shares)}",
                expected="1/3, 2/3 or 3/3, with shares of train and validation",
            )
        chosen = folds(cases, count, seed, stratify)[number - 1]
        tested = {person_of(case): "test" for case in chosen}
        people = {person: stratum for person, stratum in people.items() if person not in tested}
    drawn = tested | _deal(people, _sizes(shares, len(people)), seed)
    return [replace(case, split=cast(Split, drawn.get(person_of(case), ""))) for case in cases]


def folds(cases: Sequence[Case], k: int, seed: int, stratify: Sequence[str] | None = None) -> list[list[Case]]:
    """The cases in ``k`` disjoint parts by subject, stratified as in :func:`split_cases`, sizes within one subject.

    Raises:
        ConfigError: ``k`` is under 2 or over the number of subjects, or a column of ``stratify`` that no case has.
    """
    people = _strata(cases, stratify)
    if not 2 <= k <= len(people):
        raise ConfigError("impossible number of folds", got=k, expected=f"2 to {len(people)}, the number of subjects")
    sizes = {str(i): len(people) // k + (i < len(people) % k) for i in range(k)}
    drawn = _deal(people, sizes, seed)
    return [[case for case in cases if drawn[person_of(case)] == str(i)] for i in range(k)]


def split_summary(cases: Sequence[Case]) -> list[str]:
    """A line a split: its subjects and, by health, its cases."""
    lines = []
    for split in ("train", "validation", "test", ""):
        chosen = [case for case in cases if case.split == split]
        if chosen:
            people = len({(case.dataset, case.subject) for case in chosen})
            counts = Counter(case.health for case in chosen)
            health = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
            lines.append(f"{split or 'no split'}: {people} subjects, {len(chosen)} cases ({health})")
    return lines


def split_warnings(cases: Sequence[Case]) -> list[str]:
    """What a split will be missing later: lesions to find a threshold on, or to measure on, where the cohort has some.

    A cohort without lesions, or without splits, gets no warning.
    """
    splits = {case.split for case in cases} - {""}
    sick = {case.split for case in cases if case.health == "lesion"}
    needs = {"validation": "calibrate by best-dice needs some", "test": "evaluate has only false alarms to count there"}
    return [
        f"no case of the split {split} has a lesion: {why}; give it more subjects or try another seed"
        for split, why in needs.items()
        if sick and split in splits - sick
    ]


def _strata(cases: Sequence[Case], stratify: Sequence[str] | None) -> dict[Subject, str]:
    """The stratum of each person; different values in several sessions make a combined stratum."""
    columns = [_column(cases, name) for name in (("site", "health") if stratify is None else stratify)]
    if stratify and (absent := [name for name, values in zip(stratify, columns, strict=True) if not any(values)]):
        known = sorted({"dataset", "health", *(name for case in cases for name in case.attributes)})
        raise ConfigError("column to stratify by that no case has", got=absent, expected=f"some of {known}")
    # Without columns of a single value, so that they do not change who is drawn.
    telling = [values for values in columns if len(set(values)) > 1]
    strata: dict[Subject, set[str]] = defaultdict(set)
    for number, case in enumerate(cases):
        strata[person_of(case)].add("/".join(values[number] for values in telling))
    return {person: "+".join(sorted(values)) for person, values in strata.items()}


def _column(cases: Sequence[Case], name: str) -> list[str]:
    if name in ("dataset", "health"):
        return [str(getattr(case, name)) for case in cases]
    return [case.attributes.get(name, "") for case in cases]


def _sizes(shares: Mapping[str, int] | Mapping[str, float], people: int) -> dict[str, int]:
    allowed = [name for name in get_args(Split) if name]
    if unknown := sorted(set(shares) - set(allowed)):
        raise ConfigError("unknown split", got=unknown, expected=f"some of {allowed}")
    values = list(shares.values())
    counts = all(type(value) is int for value in values)
    if not values or min(values) < 0 or not (counts or all(type(value) is float for value in values)):
        raise ConfigError("bad shares", got=dict(shares), expected="counts, or fractions with a point, none negative")
    if sum(values) > (people if counts else 1 + 1e-9):
        raise ConfigError("shares over the whole", got=dict(shares), expected=f"{people} subjects, or 1.0, at most")
    if counts:
        return {name: int(value) for name, value in shares.items()}
    exact = {name: value * people for name, value in shares.items()}
    sizes = {name: int(value + 1e-9) for name, value in exact.items()}
    missing = round(sum(exact.values())) - sum(sizes.values())
    for name in sorted(exact, key=lambda name: sizes[name] - exact[name])[:missing]:
        sizes[name] += 1
    return sizes


def _deal(people: Mapping[Subject, str], sizes: Mapping[str, int], seed: int) -> dict[Subject, str]:
    """Draw ``sizes`` people for each part; those left over are absent from the result."""
    # The place in the queue depends on the person alone, so a cohort that grows keeps its order.
    waiting: dict[str, list[Subject]] = defaultdict(list)
    for person in sorted(people, key=lambda person: (fold(seed, "split", *person), person)):
        waiting[people[person]].append(person)
    drawn: dict[Subject, str] = {}
    for part, size in sizes.items():
        left = sum(map(len, waiting.values()))
        # Integers, so that a share without remainder is exact. No stratum runs out: a quota never exceeds it, and
        # neither does the quota + 1 where there is a remainder.
        quota = {name: divmod(size * len(queue), left) for name, queue in waiting.items()} if left else {}
        taken = Counter({name: whole for name, (whole, _) in quota.items()})
        order = sorted(quota, key=lambda name: (-quota[name][1], fold(seed, "stratum", part, name)))
        taken.update(order[: size - taken.total()])
        for name, count in taken.items():
            drawn.update(dict.fromkeys(waiting[name][:count], part))
            del waiting[name][:count]
    return drawn
