"""What a container has changed in its root (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.containers.store import ContainerStore
from lamina.jsonvalue import JsonObject
from lamina.layers.store import LayerStore
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class Changes:
    """Compare a container's writable layer with what it was made from."""

    containers: ContainerStore
    layers: LayerStore
    workers: Workers

    async def __call__(self, ref: str) -> list[JsonObject]:
        """Raises NoSuchContainer."""
        container = self.containers.resolve(ref)
        found = await self.workers.call(self.layers.rw_changes, container.id)
        return [{"Path": change.path, "Kind": int(change.kind)} for change in found]
