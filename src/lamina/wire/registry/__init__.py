"""The registry protocol (OCI distribution-spec, Docker Registry v2) as bytes and values (pure)."""
