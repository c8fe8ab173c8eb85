"""Layers as full copies of their parents: works on every file system, costs room and time (blocking)."""
