"""Values of the three OCI specifications: digests, references, manifests, configs (pure)."""
