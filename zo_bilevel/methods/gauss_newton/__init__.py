"""Gauss-Newton on a growing sketch: the default for vector problems."""
