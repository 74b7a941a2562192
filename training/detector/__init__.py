"""Training of edge-fer's own face detector: a single-shot network of three grids."""
