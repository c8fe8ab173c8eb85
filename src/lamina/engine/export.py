"""A container's whole root as a tar (async)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from lamina.containers.news import attributes_of
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.engine.image_events import Publish
from lamina.engine.outflow import stream
from lamina.errors import Conflict
from lamina.layers.store import LayerStore
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class Export:
    """Write out what the container's root shows, without volumes."""

    containers: ContainerStore
    layers: LayerStore
    workers: Workers
    publish: Publish

    def __call__(self, ref: str) -> AsyncIterator[bytes]:
        """Raises NoSuchContainer, Conflict (it is being removed): at once, not with the first bytes."""
        container = self.containers.resolve(ref)
        if container.state.status in {Status.DEAD, Status.REMOVING}:
            raise Conflict(f"You cannot export container {container.id} which is {container.state.status.value}")
        self.publish("container", "export", container.id, attributes_of(container, {}))
        return stream(self.workers, lambda out: self.layers.rw_tree_tar(container.id, out))
