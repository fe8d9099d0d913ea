"""The segmenter, the losses, and the functions from reconstructions to scores."""
