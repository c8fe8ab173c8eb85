"""Docker Engine API bodies (pure)."""
