"""Wait for the end of a container (async)."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from lamina.containers.lifecycle import Lifecycle
from lamina.containers.store import ContainerStore
from lamina.containers.waiters import WaitResult
from lamina.errors import InvalidArgument

CONDITIONS = ("not-running", "next-exit", "removed")


@dataclass(frozen=True, slots=True)
class Wait:
    """Watch for one condition of one container."""

    store: ContainerStore
    lifecycle: Lifecycle

    async def subscribe(self, ref: str, condition: str = "") -> Awaitable[WaitResult]:
        """Begin to watch; what comes back waits. Nothing that happens after this returns is missed.

        Raises:
            NoSuchContainer: no such container.
            InvalidArgument: no such condition.
        """
        wanted = condition or "not-running"
        if wanted not in CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition[:80]}"')
        return self.lifecycle.wait(self.store.resolve(ref), wanted)

    async def __call__(self, ref: str, condition: str = "") -> WaitResult:
        return await (await self.subscribe(ref, condition))
