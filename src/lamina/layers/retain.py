"""Who holds which chain: counts in memory, as in Docker (blocking; the caller locks).

A layer is held by every child layer, every writable layer on it, and by whoever asked: an image, a running operation.
"""

from __future__ import annotations

from lamina.errors import Conflict
from lamina.oci.digest import ChainId


class Holds:
    """Counts per chain id."""

    def __init__(self) -> None:
        self._counts: dict[ChainId, int] = {}

    def take(self, chain_id: ChainId) -> None:
        self._counts[chain_id] = self._counts.get(chain_id, 0) + 1

    def give(self, chain_id: ChainId) -> bool:
        """Give one hold back; True when it was the last. Raises Conflict when there was none."""
        count = self._counts.get(chain_id, 0)
        if count == 0:
            raise Conflict(f"nobody holds the layer {chain_id}")
        if count == 1:
            del self._counts[chain_id]
            return True
        self._counts[chain_id] = count - 1
        return False

    def count(self, chain_id: ChainId) -> int:
        return self._counts.get(chain_id, 0)
