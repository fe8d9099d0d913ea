"""The packages of the extra ``dicom``, imported where they are needed and not before."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from hybriduad.core.errors import ConfigError


def dicom_module(name: str) -> Any:
    """The module ``name`` of dcm2niix, pydicom or highdicom.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        mend = "pip install '.[dicom]' in the checkout"
        raise ConfigError("DICOM needs a package that is not installed", got=f"no {name}", mend=mend) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that pydicom or highdicom says of a header reaches a terminal or a log: it may quote a patient's name."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    before = [logger.propagate for logger in loggers]
    mute = logging.NullHandler()
    try:
        for logger in loggers:
            logger.propagate = False
            logger.addHandler(mute)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, state in zip(loggers, before, strict=True):
            logger.propagate = state
            logger.removeHandler(mute)
