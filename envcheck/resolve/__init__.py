"""Versions that may be combined: nogoods, search, uv, lock files, and changes that can be undone."""
