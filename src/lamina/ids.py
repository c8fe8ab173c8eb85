"""Random identities: 64 hex digits, never all decimal in the first twelve (blocking colour: reads randomness).

Source: moby pkg/stringid: an id whose short form is a number would be mistaken for one by DNS and by people.
"""

from __future__ import annotations

import os
from typing import NewType

CacheId = NewType("CacheId", str)
"""A storage driver's own name for a layer directory; random, means nothing elsewhere. May end in `-init`."""
ContainerId = NewType("ContainerId", str)
NetworkId = NewType("NetworkId", str)

SHORT = 12


def random_id() -> str:
    """64 hex digits from 32 random bytes."""
    while True:
        found = os.urandom(32).hex()
        if not found[:SHORT].isdecimal():
            return found


def new_cache_id() -> CacheId:
    return CacheId(random_id())


def new_container_id() -> ContainerId:
    return ContainerId(random_id())


def new_network_id() -> NetworkId:
    return NetworkId(random_id())
