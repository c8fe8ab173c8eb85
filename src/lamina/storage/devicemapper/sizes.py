"""Sizes as Docker prints them (no I/O)."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def human(size_bytes: int) -> str:
    """`10.74GB`: units of 1000, four digits. Source: docker/go-units HumanSize."""
    value = float(size_bytes)
    unit = 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.4g}{_UNITS[unit]}"
