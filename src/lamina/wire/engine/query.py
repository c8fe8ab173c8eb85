"""Query parameters as Docker reads them (pure).

Source: moby daemon/server/httputils/form.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lamina.errors import InvalidArgument

Query = Mapping[str, Sequence[str]]


def text(query: Query, key: str, default: str = "") -> str:
    """The first value."""
    found = query.get(key)
    return found[0] if found else default


def boolean(query: Query, key: str, *, default: bool = False) -> bool:
    """False for nothing, `0`, `no`, `false` and `none`; true for any other text; `default` when the key is absent."""
    if key not in query:
        return default
    return text(query, key).strip().lower() not in {"", "0", "no", "false", "none"}


def integer(query: Query, key: str) -> int | None:
    """A whole number; None when absent or empty.

    Raises:
        InvalidArgument: not a number.
    """
    found = text(query, key).strip()
    if not found:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", found):
        raise InvalidArgument(f"invalid value for {key}: {found[:100]!r} is no whole number")
    return int(found)


def timestamp_ns(query: Query, key: str) -> int | None:
    """Seconds since the epoch, with up to nine digits after the point, as nanoseconds; None when absent or empty.

    Raises:
        InvalidArgument: not such a number.
    """
    found = text(query, key).strip()
    if not found:
        return None
    parts = re.fullmatch(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9})[0-9]*)?", found)
    if not parts:
        raise InvalidArgument(f"invalid value for {key}: {found[:100]!r} is no time in seconds since the epoch")
    total = int(parts[2]) * 1_000_000_000 + int((parts[3] or "").ljust(9, "0"))
    return -total if parts[1] else total
