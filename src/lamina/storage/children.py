"""Who stands on whom, for drivers that keep a parent while it has children (the driver's lock guards it)."""

from __future__ import annotations

from typing import Generic, TypeVar

from lamina.ids import CacheId

K = TypeVar("K")


class Children(Generic[K]):
    """Children by what the driver knows their parent by."""

    def __init__(self) -> None:
        self._of: dict[K, set[CacheId]] = {}

    def add(self, parent: K, child: CacheId) -> None:
        """Again is fine."""
        self._of.setdefault(parent, set()).add(child)

    def discard(self, parent: K, child: CacheId) -> None:
        """Nobody's child is fine."""
        siblings = self._of.get(parent, set())
        siblings.discard(child)
        if not siblings:
            self._of.pop(parent, None)

    def count(self, parent: K) -> int:
        return len(self._of.get(parent, ()))
