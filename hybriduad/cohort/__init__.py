"""Many scans: manifest, splits, identity and leakage, truth."""
