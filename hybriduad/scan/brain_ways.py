"""How the brain of a head is found, where no mask is given and the scan is not stripped: which way, and its limits.

The way is part of the ``anatomy``, so that it travels with a bundle: intensities are scaled by the brain's median, and
thresholds hold for scores inside brains found that way. A bundle that states none was made with the estimate of
:mod:`hybriduad.scan.brain_surface`, and keeps it whatever is installed.
"""

from __future__ import annotations

import hashlib
import shlex
from pathlib import PurePath
from typing import get_args

import numpy as np

from hybriduad.config.runs import Anatomy, BrainWay
from hybriduad.config.strict import checked
from hybriduad.core.errors import ConfigError, DataError
from hybriduad.scan.brain_command import brain_by_command
from hybriduad.scan.strippers import STRIPPERS
from hybriduad.scan.volumes import Image, spacing_of, to_ras

ESTIMATE = "estimate"
PLAUSIBLE_ML = (600.0, 2200.0)
"""Volumes of a whole brain: those of small children are smaller, and of parts of a head."""


def chosen(anatomy: Anatomy, brain: str | None = None) -> Anatomy:
    """``anatomy`` with the way that a user asks for, ready for use: "auto" has become what is installed.

    Args:
        anatomy: of a config or a bundle.
        brain: a :data:`~hybriduad.config.runs.BrainWay`, or a command with ``{in}`` and ``{out}``, split as a shell
            would split it but run without one; None for what ``anatomy`` states.

    Raises:
        ConfigError: an unknown way, a package that is not installed, or a bundle whose way is a command, which is never
            taken from a bundle, without that command.
    """
    if brain is not None:
        try:
            way = brain if brain in get_args(BrainWay) or "{" not in brain else shlex.split(brain)
        except ValueError as error:
            raise ConfigError(
                "brain command that cannot be split", got=repr(brain), expected="closed quotes"
            ) from error
        anatomy = checked(Anatomy, anatomy.model_dump() | {"brain": way}, "--brain")
    if anatomy.brain == "auto":
        installed = next((name for name, stripper in STRIPPERS.items() if stripper.version), None)
        anatomy = checked(Anatomy, anatomy.model_dump() | {"brain": installed}, "anatomy")
    brain_name(anatomy)
    return anatomy


def chosen_to_fit(anatomy: Anatomy, brain: str | None = None) -> Anatomy:
    """As :func:`chosen` for a new bundle, which takes what is installed where nothing is stated."""
    return chosen(anatomy, "auto" if brain is None and anatomy.brain is None else brain)


def brain_name(anatomy: Anatomy) -> str:
    """How brains are found, for records: "estimate", the package with its version, or the command.

    Of a command it holds the program and a digest of its arguments, which may name folders.

    Raises:
        ConfigError: a package that is not installed, or no command for a way that is one.
    """
    if anatomy.brain in STRIPPERS:
        return STRIPPERS[anatomy.brain].name
    if anatomy.brain == "command":
        if not anatomy.brain_command:
            mend = "give it, as in --brain 'mri_synthstrip -i {in} -m {out}'; a bundle holds no command"
            raise ConfigError("brain by a command, but no command", mend=mend)
        program = PurePath(anatomy.brain_command[0]).name
        digest = hashlib.sha256("\0".join(anatomy.brain_command).encode()).hexdigest()[:8]
        return f"external command {program} ({digest})"
    return ESTIMATE


def brain_key(anatomy: Anatomy) -> list[str]:
    """What tells masks of two ways apart, for keys of caches; nothing for the estimate.

    Another version of a program behind the same command cannot be told.

    Raises:
        ConfigError: as :func:`chosen`.
    """
    name = brain_name(chosen(anatomy))
    return [] if name == ESTIMATE else [name]


def outline_brain(image: Image, anatomy: Anatomy, where: str) -> tuple[np.ndarray, str] | None:
    """The brain (X, Y, Z) bool in RAS of a head, and how it was found; None where ``anatomy`` wants our estimate.

    Raises:
        ConfigError: as :func:`chosen`.
        DataError: package or command fail on this scan, or give a brain outside :data:`PLAUSIBLE_ML`.
    """
    anatomy = chosen(anatomy)
    name = brain_name(anatomy)
    if name == ESTIMATE:
        return None
    spacing = spacing_of(image.grid.affine_ras)
    if anatomy.brain in STRIPPERS:
        brain = STRIPPERS[anatomy.brain](to_ras(image)[0], spacing, where)
    else:
        brain = brain_by_command(anatomy.brain_command, image, where)
    volume_ml = float(brain.sum()) * float(np.prod(spacing)) / 1000
    if brain.any() and not is_plausible(volume_ml):
        raise DataError(
            "implausible brain",
            where=where,
            got=f"{volume_ml:.0f} ml by {name}",
            expected="{:.0f} to {:.0f} ml".format(*PLAUSIBLE_ML),
            mend="look at the scan and its voxel size; of a child or a part of a head, name the brain mask (the "
            "manifest's column 'brain'), whose volume is not questioned",
        )
    return brain, name


def is_plausible(volume_ml: float) -> bool:
    """Whether a whole brain may have that volume."""
    return PLAUSIBLE_ML[0] <= volume_ml <= PLAUSIBLE_ML[1]
