"""The embedded registry: the edge that speaks the registry protocol, and its files (async)."""
