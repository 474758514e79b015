"""Dispatchers that run a round of solves, one file each."""
