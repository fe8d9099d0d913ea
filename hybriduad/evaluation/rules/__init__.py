"""Plug-ins: the rules by which thresholds are found. The contract is in ``_base``."""

DEFAULT = "best-dice"
"""The rule of a calibration that names none."""
