"""What POSIX and Linux promise of a file system, as cases that run over any directory."""
