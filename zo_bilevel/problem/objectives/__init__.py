"""Outer objectives, one file each."""
