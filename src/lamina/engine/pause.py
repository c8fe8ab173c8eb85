"""Freeze and thaw a container (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.containers.lifecycle import Lifecycle
from lamina.containers.store import ContainerStore


@dataclass(frozen=True, slots=True)
class Pause:
    """Freeze every process of a container."""

    store: ContainerStore
    lifecycle: Lifecycle

    async def __call__(self, ref: str) -> None:
        """Raises NoSuchContainer; Conflict when it does not run or is frozen."""
        await self.lifecycle.pause(self.store.resolve(ref))


@dataclass(frozen=True, slots=True)
class Unpause:
    """Let the processes of a frozen container run again."""

    store: ContainerStore
    lifecycle: Lifecycle

    async def __call__(self, ref: str) -> None:
        """Raises NoSuchContainer; Conflict when it is not frozen."""
        await self.lifecycle.unpause(self.store.resolve(ref))
