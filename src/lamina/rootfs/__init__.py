"""Changesets against real directories: walk, compare, copy, remove, apply (blocking)."""
