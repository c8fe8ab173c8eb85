"""Start a container (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.containers.lifecycle import Lifecycle
from lamina.containers.store import ContainerStore


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container that was created, or has ended."""

    store: ContainerStore
    lifecycle: Lifecycle

    async def __call__(self, ref: str) -> None:
        """The command runs when this returns.

        Raises:
            NoSuchContainer: no such container.
            NotModified: it runs.
            Conflict: it is paused or being removed.
            CommandNotFound, CommandNotExecutable, ProcessFailed: with Docker's words.
        """
        await self.lifecycle.start(self.store.resolve(ref))
