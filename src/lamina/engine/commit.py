"""Make an image from a container (async)."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from lamina import __version__
from lamina.clock import Clock, rfc3339
from lamina.containers.news import attributes_of
from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.engine.config_changes import apply_changes
from lamina.engine.image_events import Publish, publish_image
from lamina.errors import Conflict
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject, JsonValue, strings
from lamina.layers.store import LayerStore
from lamina.oci.config import HistoryEntry, ImageConfig, encode_config
from lamina.oci.digest import EMPTY_LAYER_DIFF_ID, DiffId, ImageId
from lamina.oci.platform import host_platform
from lamina.oci.reference import Reference
from lamina.workers import Workers

Merge: TypeAlias = Callable[[JsonObject, JsonObject], JsonObject]
"""(own, base) → own, completed from base by Docker's rules."""


class Freezer(Protocol):
    """Stops the processes of a container for a while."""

    async def pause(self, container: Container) -> None: ...
    async def unpause(self, container: Container) -> None: ...


@dataclass(frozen=True, slots=True)
class Commit:
    """Register what a container changed as a layer, and put an image config on top."""

    containers: ContainerStore
    layers: LayerStore
    images: ImageStore
    tags: TagStore
    freezer: Freezer
    merge: Merge
    clock: Clock
    workers: Workers
    publish: Publish

    async def __call__(
        self,
        ref: str,
        reference: Reference | None,
        *,
        author: str,
        message: str,
        pause: bool,
        changes: Sequence[str],
        config: JsonObject | None,
    ) -> ImageId:
        """The new image; with a reference it gets that name. `config` None means the container's own.

        Raises:
            NoSuchContainer: no such container.
            Conflict: it is dead or being removed.
            InvalidArgument: a change that cannot be made.
        """
        container = self.containers.resolve(ref)
        if container.state.status in {Status.DEAD, Status.REMOVING}:
            raise Conflict(f"You cannot commit container {container.id} which is {container.state.status.value}")
        run = self.merge(apply_changes(config or container.config, changes), container.config)
        async with self._frozen(container, pause=pause):
            image = await self.workers.call(self._register, container, run, author, message=message)
        wanted = reference.with_default_tag() if reference is not None else None
        if wanted is not None:
            await self.workers.call(self._tag, image, wanted)
            publish_image(self.publish, "tag", image, self.images, name=wanted.familiar())
        self._tell(container, image, wanted, message)
        return image

    @asynccontextmanager
    async def _frozen(self, container: Container, *, pause: bool) -> AsyncIterator[None]:
        if not pause or container.state.status is not Status.RUNNING or not await self._freeze(container):
            yield
            return
        try:
            yield
        finally:
            # Conflict: somebody killed it meanwhile.
            with suppress(Conflict):
                await self.freezer.unpause(container)

    async def _freeze(self, container: Container) -> bool:
        """False when its command ended in this moment: nothing is left to freeze."""
        try:
            await self.freezer.pause(container)
        except Conflict:
            return False
        return True

    def _register(self, container: Container, run: JsonObject, author: str, *, message: str) -> ImageId:
        parent = self.images.get(container.image_id) if container.image_id else None
        layer = self.layers.register_rw(container.id)
        try:
            raw = child_config(
                parent,
                layer.diff_id,
                container,
                run,
                author=author,
                comment=message,
                created=rfc3339(self.clock.now_ns()),
            )
            image = self.images.put(raw)
            if container.image_id:
                self.images.set_parent(image, container.image_id)
            self.images.set_built_locally(image)
            return image
        finally:
            # The image holds its layers itself.
            self.layers.release(layer.chain_id)

    def _tag(self, image: ImageId, reference: Reference) -> None:
        self.tags.set_tag(reference, image)
        self.images.set_last_updated(image, rfc3339(self.clock.now_ns()))

    def _tell(self, container: Container, image: ImageId, reference: Reference | None, message: str) -> None:
        name = reference.familiar() if reference is not None else ""
        more = {"comment": message, "imageID": str(image), "imageRef": name}
        self.publish("container", "commit", container.id, attributes_of(container, more))


def child_config(
    parent: ImageConfig | None,
    diff_id: DiffId,
    container: Container,
    run: JsonObject,
    *,
    author: str,
    comment: str,
    created: str,
) -> bytes:
    """The config of the image that a container becomes on top of its own image.

    Source: moby image.NewChildImage, daemon/images/image_commit.go.
    """
    is_empty = diff_id == EMPTY_LAYER_DIFF_ID
    step = HistoryEntry(
        created=created,
        created_by=" ".join(strings(container.config, "Cmd")),
        author=author,
        comment=comment,
        empty_layer=is_empty,
    )
    host = host_platform(platform.machine())
    diff_ids: list[JsonValue] = [*(parent.diff_ids if parent else ()), *(() if is_empty else (diff_id,))]
    history: list[JsonValue] = [entry.as_json() for entry in (*(parent.history if parent else ()), step)]
    fields: JsonObject = {
        "architecture": parent.architecture if parent else host.architecture,
        "config": run,
        "container": container.id,
        "container_config": container.config,
        "created": created,
        "docker_version": __version__,
        "history": history,
        "os": parent.os if parent else "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    optional: JsonObject = {"author": author, "variant": parent.variant if parent else host.variant}
    if parent is not None:
        optional |= {"os.version": parent.os_version, "os.features": list(parent.os_features)}
    fields |= {key: value for key, value in optional.items() if value}
    return encode_config(fields)
