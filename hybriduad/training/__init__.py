"""Samples, augmentation, tasks, the loop, and the two stages as functions."""
