"""The packages of the extra ``dicom``, imported where they are needed and not before."""

from __future__ import annotations

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
        mend = "pip install 'hybriduad[dicom]'"
        raise ConfigError("DICOM needs a package that is not installed", got=f"no {name}", mend=mend) from error
