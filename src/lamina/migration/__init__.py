"""A data root from one storage driver to another: images, containers and what they wrote; and back (blocking)."""
