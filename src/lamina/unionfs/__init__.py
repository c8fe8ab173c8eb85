"""A union file system of its own, on FUSE, with the branches and whiteouts of AUFS (blocking)."""
