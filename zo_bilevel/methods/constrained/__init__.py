"""The local search that keeps constraints, on the loss or on the whole inner solution."""
