"""The two HTTP protocols as bytes and bodies (pure)."""
