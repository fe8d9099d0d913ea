"""A reconstructor, a segmenter or both, with the score: slices to maps, volume to prediction; bundles."""
