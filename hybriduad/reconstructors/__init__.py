"""Reconstruction families: one family a file. See ``hybriduad.reconstructors._base`` for the contract."""
