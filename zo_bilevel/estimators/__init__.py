"""Estimators of the hypergradient, one file each."""
