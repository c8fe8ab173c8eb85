"""Lamina: a container engine that can be trusted with data, seen into, and changed."""

__version__ = "0.1.0"
