"""Direct preference optimisation on pairs, off-line and on-line: losses, settings, and the method."""
