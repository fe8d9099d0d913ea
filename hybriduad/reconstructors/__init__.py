"""Reconstruction families: one a file. See ``hybriduad.reconstructors._base`` for the contract."""
