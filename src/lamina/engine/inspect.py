"""Show everything about one container (async)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina.containers.record import Container
from lamina.containers.store import ContainerStore
from lamina.engine.container_view import ContainerViews
from lamina.ids import ContainerId
from lamina.jsonvalue import JsonObject
from lamina.wire.engine.containers import encode_inspect
from lamina.workers import Workers


def no_execs(_: ContainerId) -> Sequence[str]:
    """For an engine without exec."""
    return ()


@dataclass(frozen=True, slots=True)
class InspectContainer:
    """One container in Docker's shape. `exec_ids` gives the ids of a container's execs."""

    containers: ContainerStore
    views: ContainerViews
    workers: Workers
    exec_ids: Callable[[ContainerId], Sequence[str]] = no_execs

    async def __call__(self, ref: str, size: bool = False) -> JsonObject:  # noqa: FBT001, FBT002 - Docker's flag
        """Docker's `ContainerInspectResponse`; `size` adds what the container takes, and costs a walk through it.

        Raises:
            NoSuchContainer: no such container.
        """
        container = self.containers.resolve(ref)
        execs = tuple(self.exec_ids(container.id))
        return await self.workers.call(self._inspect, container, execs, size=size)

    def _inspect(self, container: Container, execs: tuple[str, ...], *, size: bool) -> JsonObject:
        return encode_inspect(self.views.view(container, size=size, driver_data=True, exec_ids=execs))
