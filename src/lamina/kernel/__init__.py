"""One function per system call; OSError with errno and path (blocking)."""
