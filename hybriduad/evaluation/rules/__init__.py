"""Plug-ins: the rules by which thresholds are set. The contract is in ``_base``."""

DEFAULT = "best-dice"
"""The rule of a calibration that names none."""
