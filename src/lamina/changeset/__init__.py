"""What a layer is: entries, tar framing, whiteouts, compression (pure)."""
