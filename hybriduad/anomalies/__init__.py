"""Synthetic anomalies: one generator a file. See ``hybriduad.anomalies._base`` for the contract."""
