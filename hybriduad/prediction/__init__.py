"""Inference on a case or a cohort, and the files it leaves."""
