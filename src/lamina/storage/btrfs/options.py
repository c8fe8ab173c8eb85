"""The options that Docker's btrfs driver knows (pure). Source: moby daemon/graphdriver/btrfs/btrfs.go, parseOptions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lamina.errors import InvalidArgument

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_EXPONENTS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def read_options(options: Mapping[str, str]) -> int:
    """The value of `btrfs.min_space` in bytes, 0 without one.

    Raises:
        InvalidArgument: an unknown option, or no size.
    """
    for key in options:
        if key.lower() != "btrfs.min_space":
            raise InvalidArgument(f"unknown option {key} of storage driver btrfs", hint="only btrfs.min_space is known")
    return next((_bytes_of(value) for value in options.values()), 0)


def _bytes_of(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"btrfs.min_space={text[:80]}: no size", hint="for example btrfs.min_space=10G")
    return int(float(found[1]) * 1024 ** _EXPONENTS[found[2].lower()])
