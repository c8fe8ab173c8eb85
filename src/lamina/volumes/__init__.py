"""Volumes: directories that outlive containers, and the record of their labels and options (blocking)."""
