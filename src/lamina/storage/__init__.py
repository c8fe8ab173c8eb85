"""Where layers live: storage drivers, their choice, counted mounts (blocking)."""
