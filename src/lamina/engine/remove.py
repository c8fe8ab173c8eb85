"""Remove a container (async)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from lamina.containers.launching import SIGKILL
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.errors import Conflict

_REFUSALS = {
    Status.RUNNING: "container is running: stop the container before removing or force remove",
    Status.PAUSED: "container is paused and must be unpaused first",
    Status.RESTARTING: "container is restarting: stop the container before removing or force remove",
}


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a container with its writable layer, its network place and its files."""

    store: ContainerStore
    lifecycle: Lifecycle

    async def __call__(self, ref: str, force: bool = False, volumes: bool = False) -> None:  # noqa: FBT001, FBT002 - Docker's two flags
        """Nothing of the container is left when this returns. `force` kills it first; `volumes`: anonymous ones too.

        Raises:
            NoSuchContainer: no such container.
            Conflict: it runs and `force` is not given, or it is being removed already.
        """
        container = self.store.resolve(ref)
        if not force and container.state.status in _REFUSALS:
            raise Conflict(f'cannot remove container "{container.name}": {_REFUSALS[container.state.status]}')
        gone = self.lifecycle.wait(container, "removed")
        try:
            await self._end(container)
            try:
                await self.lifecycle.remove(container, volumes=volumes)
            except Conflict:
                if not force:
                    raise
                # It removes itself at its end (--rm): that is what was asked for.
                await gone
        finally:
            gone.cancel()

    async def _end(self, container: Container) -> None:
        if self.lifecycle.run_of(container) is None and container.state.status is not Status.RESTARTING:
            return
        # Conflict: it has ended by itself in this moment.
        with contextlib.suppress(Conflict):
            await self.lifecycle.kill(container, SIGKILL, stop_signal=SIGKILL)
