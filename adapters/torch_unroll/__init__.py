"""Loops of torch steps as inner solvers, differentiable both ways."""
