"""Layers as ZFS datasets: a clone of a snapshot costs nothing until it is written to (blocking)."""
