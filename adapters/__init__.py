"""Adapters: one file per kind of inner solver."""
