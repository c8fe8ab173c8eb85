"""Give a container another name (async)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from lamina.containers.names import parse_name
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.errors import Conflict, InvalidArgument
from lamina.jsonvalue import string_map, text
from lamina.workers import Workers


class EventSink(Protocol):
    """Where events go."""

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Rename:
    """Rename a container, whether it runs or not."""

    containers: ContainerStore
    events: EventSink
    workers: Workers

    async def __call__(self, ref: str, name: str) -> None:
        """The old name is free when this returns.

        Raises:
            NoSuchContainer: no such container.
            InvalidArgument: no name, one that is not allowed, or the same.
            NameInUse: another container has it.
        """
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        container = self.containers.resolve(ref)
        wanted = parse_name(name)
        async with self.workers.holding(container.id):
            old = container.name
            if wanted == old:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            if container.state.status in {Status.REMOVING, Status.DEAD}:
                raise Conflict(f"Container {container.id} is marked for removal and cannot be renamed")
            await self.workers.call(self.containers.rename, container, wanted)
        attributes = string_map(container.config, "Labels")
        attributes.update({"image": text(container.config, "Image"), "name": wanted, "oldName": f"/{old}"})
        self.events.publish("container", "rename", container.id, attributes)
