"""The layer store: layers by chain id, their directories, and the way in and out as tar (blocking)."""
