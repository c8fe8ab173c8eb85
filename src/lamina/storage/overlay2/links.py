"""Short names of layers, and the `lower` strings built from them (no I/O).

Mount options are limited to one page, so 128 lower directories only fit when each is named by 26 characters:
`l/<short>` is a symlink to `../<cache id>/diff`. Source: moby overlay2/overlay.go, "lowerID", idLength.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

LINK_DIR = "l"

_LINK = re.compile(r"[A-Z2-7]{26}")
_LOWER = re.compile(r"l/[A-Z2-7]{26}(:l/[A-Z2-7]{26})*")


def short_link(random_bytes: bytes) -> str:
    """26 base32 characters from 17 random bytes."""
    return base64.b32encode(random_bytes).decode("ascii")[:26]


def is_link(text: str) -> bool:
    """A crash can leave the `link` file empty; an empty name would mean the whole `l/` directory."""
    return _LINK.fullmatch(text) is not None


def is_lower(text: str) -> bool:
    return _LOWER.fullmatch(text) is not None


def lower_on(link: str, lower: str) -> str:
    """The `lower` string of a child of the layer with this `link` and `lower` (empty: a base layer)."""
    own = f"{LINK_DIR}/{link}"
    return f"{own}:{lower}" if lower else own


def lower_links(lower: str) -> tuple[str, ...]:
    """The short names in a `lower` string, uppermost first."""
    return tuple(part.removeprefix(f"{LINK_DIR}/") for part in lower.split(":")) if lower else ()


def joined(entries: Iterable[str]) -> str:
    """The `lower` string of short names, uppermost first."""
    return ":".join(f"{LINK_DIR}/{entry}" for entry in entries)
