"""Layers as stacks of directories that the kernel's overlay file system shows as one tree (blocking)."""
