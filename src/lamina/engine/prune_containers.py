"""Remove the containers that do not run (async).

Source: moby daemon/prune.go, ContainersPrune.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from lamina.clock import Clock
from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.engine.prune_filters import prune_choice
from lamina.errors import Conflict, NotFound
from lamina.jsonvalue import JsonObject, JsonValue, string_map
from lamina.layers.store import LayerStore
from lamina.wire.engine.containers import epoch_ns
from lamina.wire.engine.filters import Filters
from lamina.workers import Workers

Publish: TypeAlias = Callable[[str, str, str, Mapping[str, str]], None]
_FILTERS = frozenset({"label", "label!", "until"})
_ALIVE = frozenset({Status.RUNNING, Status.PAUSED, Status.RESTARTING, Status.REMOVING})


class Remove(Protocol):
    """The verb that removes one container."""

    async def __call__(self, ref: str, force: bool = False, volumes: bool = False) -> None: ...  # noqa: FBT001, FBT002


@dataclass(frozen=True, slots=True)
class PruneContainers:
    """Remove every container that does not run and fits; their volumes stay."""

    containers: ContainerStore
    layers: LayerStore
    remove: Remove
    clock: Clock
    workers: Workers
    publish: Publish

    async def __call__(self, filters: Filters) -> JsonObject:
        """The ids that went, and the bytes of their writable layers. One that is started or removed meanwhile is fine.

        Raises:
            InvalidArgument: a filter or a value that nothing understands.
        """
        choice = prune_choice(filters, _FILTERS, self.clock.now_ns())
        gone: list[JsonValue] = []
        reclaimed = 0
        for container in self.containers.all():
            labels = string_map(container.config, "Labels")
            if container.state.status in _ALIVE or not choice.fits(epoch_ns(container.created), labels):
                continue
            size = await self.workers.call(self._written_bytes, container)
            try:
                await self.remove(container.id)
            except (Conflict, NotFound):
                continue
            gone.append(container.id)
            reclaimed += size
        self.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return {"ContainersDeleted": gone or None, "SpaceReclaimed": reclaimed}

    def _written_bytes(self, container: Container) -> int:
        try:
            return self.layers.rw_usage(container.id).size_bytes
        except (NotFound, OSError):
            return 0
