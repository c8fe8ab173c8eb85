"""The FUSE protocol as bytes: what the kernel asks a file system server, and the answers (pure)."""
