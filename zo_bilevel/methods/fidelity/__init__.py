"""Searches that ask for cheap solves first, and for full ones where it matters."""
