"""What the Linux kernel does for us, one function per system call (blocking)."""
