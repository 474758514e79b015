"""Functional Mock-up Units as inner solvers."""
