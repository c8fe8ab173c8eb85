"""The registry client: endpoints, credentials, manifests, blobs, shared transfers (async)."""
