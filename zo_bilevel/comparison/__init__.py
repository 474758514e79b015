"""Several methods under the same conditions, and what follows from it."""
