"""Brains that the package makes itself."""
