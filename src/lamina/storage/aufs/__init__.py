"""Layers as stacks of branches that aufs, or our own union file system on FUSE, shows as one tree (blocking)."""
