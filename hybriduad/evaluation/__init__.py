"""Predictions against the truth; thresholds, figures, tables, comparison."""
