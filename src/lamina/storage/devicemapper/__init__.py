"""Layers as thin devices of a device-mapper pool, each with a file system of its own (blocking)."""
