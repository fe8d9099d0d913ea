"""One scan: NIfTI and its guards, brain, model grid and back, preparation and its cache."""
