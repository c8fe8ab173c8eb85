"""Files out of and into containers: `docker cp` (async)."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from lamina.changeset.compression import decompressed
from lamina.changeset.tarcodec import TarReader
from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.containers.user import resolve_user
from lamina.engine.inflow import carry
from lamina.engine.outflow import Outflow, stream
from lamina.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, StorageFull
from lamina.jsonvalue import JsonObject, boolean, go_json, parse_object, text
from lamina.layers.rwtar import write_named
from lamina.layers.store import LayerStore
from lamina.rootfs import resource
from lamina.rootfs.place import Placer
from lamina.rootfs.view import Bind, View, in_view
from lamina.volumes.store import VolumeStore
from lamina.workers import Workers

T = TypeVar("T")


class Tells(Protocol):
    """Publishes what happened to a container."""

    def tell(self, container: Container, action: str, **more: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Roots:
    """Containers' roots with their volumes and binds in place (blocking; the verbs below call it in a thread)."""

    layers: LayerStore
    volumes: VolumeStore

    def inside(self, container: Container, work: Callable[[View], T]) -> T:
        """Run `work` on the container's root, mounted for as long as that takes."""
        root = self.layers.mount_rw(container.id)
        try:
            read_only = boolean(container.host_config, "ReadonlyRootfs")
            return in_view(root, list(_binds(container, self.volumes)), work, read_only=read_only)
        finally:
            self.layers.unmount_rw(container.id)


@dataclass(frozen=True, slots=True)
class StatPath:
    """Tell what a path in a container is."""

    containers: ContainerStore
    roots: Roots
    workers: Workers

    async def __call__(self, ref: str, path: str) -> JsonObject:
        """Raises NoSuchContainer, NotFound (the path), Conflict (it is being removed)."""
        container = _usable(self.containers, ref)

        def look(view: View) -> JsonObject:
            with _named(path, ref):
                found = resource.find(view, path)
            try:
                return resource.describe(view, found)
            finally:
                found.close()

        return await self.workers.call(self.roots.inside, container, look)


@dataclass(frozen=True, slots=True)
class CopyOut:
    """Archive a file or directory of a container."""

    containers: ContainerStore
    roots: Roots
    workers: Workers
    events: Tells

    async def __call__(self, ref: str, path: str) -> tuple[JsonObject, AsyncIterator[bytes]]:
        """What the path is, and its tar. The description and the tar are of the very same open file.

        Raises:
            NoSuchContainer, NotFound (the path), Conflict (the container is being removed).
        """
        container = _usable(self.containers, ref)

        def write(out: Outflow) -> None:
            def archive(view: View) -> None:
                with _named(path, ref):
                    found = resource.find(view, path)
                try:
                    out.write(go_json(resource.describe(view, found)))
                    resource.write_archive(found, write_named, out)
                finally:
                    found.close()

            self.roots.inside(container, archive)

        chunks = stream(self.workers, write)
        # The description is the first chunk by itself; an error of finding the path comes in its place.
        description = parse_object(await anext(chunks), what="path stat")
        self.events.tell(container, "archive-path")
        return description, chunks


@dataclass(frozen=True, slots=True)
class CopyIn:
    """Extract an archive into a directory of a container."""

    containers: ContainerStore
    roots: Roots
    workers: Workers
    events: Tells

    async def __call__(
        self,
        ref: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
    ) -> None:
        """`copy_uid_gid` gives what is made to the container's user instead of the archive's owners.

        The archive may be plain or compressed by gzip, bzip2, xz or zstd; no program is started for that.

        Raises:
            NoSuchContainer, NotFound: the container, the path.
            InvalidArgument: the path is no directory, or the archive is none or unsafe.
            PermissionDenied: the path is read-only.
            Conflict: the container is being removed.
            StorageFull: no room.
        """
        container = _usable(self.containers, ref)

        def read(pieces: Iterator[bytes]) -> None:
            def extract(view: View) -> None:
                owner = _container_user(container, view) if copy_uid_gid else None
                with _named(path, ref):
                    target = view.open(resource.absolute(path), os.O_PATH)
                try:
                    _check_target(container, view, target)
                    with Placer(view, target, keep_kinds=no_overwrite_dir_non_dir, owner=owner) as placer:
                        placer.place_all(TarReader(decompressed(pieces)))
                finally:
                    os.close(target)

            with _room(container):
                self.roots.inside(container, extract)

        await carry(self.workers, chunks, read)
        self.events.tell(container, "extract-to-dir")


def _usable(containers: ContainerStore, ref: str) -> Container:
    container = containers.resolve(ref)
    if container.state.status in {Status.DEAD, Status.REMOVING}:
        raise Conflict(f"container {container.id} is being removed")
    return container


def _binds(container: Container, volumes: VolumeStore) -> Iterator[Bind]:
    for mount in container.mounts.values():
        if mount.type == "volume":
            yield Bind(volumes.get(mount.name).mountpoint, mount.destination, read_only=not mount.rw)
        elif mount.type == "bind":
            yield Bind(Path(mount.source), mount.destination, read_only=not mount.rw)
    for path, target in (
        (container.resolv_conf_path, "/etc/resolv.conf"),
        (container.hostname_path, "/etc/hostname"),
        (container.hosts_path, "/etc/hosts"),
    ):
        if path and target not in container.mounts and Path(path).exists():
            yield Bind(Path(path), target, read_only=False)


def _container_user(container: Container, view: View) -> tuple[int, int] | None:
    wanted = text(container.config, "User")
    if not wanted:
        return None
    found = resolve_user(view.root, wanted)
    return found.uid, found.gid


def _check_target(container: Container, view: View, target: int) -> None:
    if not os.path.isdir(target):
        raise InvalidArgument("extraction point is not a directory")
    mounted = view.bind_of(target)
    if mounted is not None and mounted.read_only:
        raise PermissionDenied("mounted volume is marked read-only")
    if mounted is None and boolean(container.host_config, "ReadonlyRootfs"):
        raise PermissionDenied("container rootfs is marked read-only")


@contextmanager
def _named(path: str, ref: str) -> Iterator[None]:
    """A path that is not there is told in the words that docker's client knows."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"Could not find the file {path} in container {ref}") from error
    except NotADirectoryError as error:
        raise InvalidArgument(f"{path}: not a directory") from error
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG, errno.EINVAL}:
            raise
        raise InvalidArgument(f"{path} cannot be resolved in the container: {error.strerror}") from error


@contextmanager
def _room(container: Container) -> Iterator[None]:
    """What the kernel says about writing, in the engine's words."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull(f"no room to copy into container {container.name}: {error.strerror}") from error
        if error.errno == errno.EROFS:
            raise PermissionDenied("a part of the target is marked read-only") from error
        raise
