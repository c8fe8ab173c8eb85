"""Containers under the real OCI runtime and monitor, without a daemon around them."""
