"""The calibrated thresholds of a bundle, one for each part of a prediction and rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hybriduad.core.errors import ConfigError

PARTS = ("score", "probability", "map", "intensity")
"""The maps of a prediction that a threshold can be calibrated for."""


@dataclass(frozen=True)
class Thresholds:
    """Calibrated thresholds: ``values[rule][part]``; ``default`` is the rule that a mask uses unless told otherwise."""

    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    default: str = ""

    def of(self, part: str, rule: str | None = None) -> float | None:
        """The threshold of a part by a rule; ``None`` without any calibration.

        Raises:
            ConfigError: a rule that was not calibrated.
        """
        if rule is not None and rule not in self.values:
            mend = "calibrate the bundle by that rule"
            raise ConfigError("uncalibrated rule", got=repr(rule), expected=f"one of {sorted(self.values)}", mend=mend)
        return self.values.get(rule or self.default, {}).get(part)
