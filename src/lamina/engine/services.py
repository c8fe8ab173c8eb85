"""Services: the frozen record of all verbs, which is what the API edge is given; no behaviour (async).

Each verb is described here by what its callers rely on. A field that is None is a verb this daemon does not have;
the edge answers 501 and names the operation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from lamina.events import Event
from lamina.jsonvalue import JsonObject
from lamina.oci.digest import ImageId
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.wire.engine.auth import RegistryAuth
from lamina.wire.engine.filters import Filters
from lamina.wire.engine.progress import ProgressSink

# -- what verbs give back


class Created(Protocol):
    """A new container."""

    @property
    def id(self) -> str: ...
    @property
    def warnings(self) -> Sequence[str]: ...


class Ended(Protocol):
    """How a container ended."""

    @property
    def status_code(self) -> int: ...
    @property
    def error(self) -> str: ...


class Session(Protocol):
    """Both ends of a process's streams."""

    @property
    def tty(self) -> bool: ...

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Stream number (1 stdout, 2 stderr) and bytes; ends when everything is delivered."""

    async def write_stdin(self, data: bytes) -> None:
        """Raises Unavailable or OSError when the process reads no more."""

    async def close_stdin(self) -> None: ...
    async def aclose(self) -> None:
        """Let go of the streams; the process lives on. Twice is fine."""


class LogLine(Protocol):
    """A piece of a container's output, with its line end if it has one."""

    @property
    def stream(self) -> int: ...
    @property
    def time(self) -> str:
        """RFC 3339 in UTC."""

    @property
    def data(self) -> bytes: ...
    @property
    def attrs(self) -> Mapping[str, str]:
        """What `logs --details` shows."""


@dataclass(frozen=True, slots=True)
class LogWanted:
    """Which lines, and whether to wait for more."""

    stdout: bool
    stderr: bool
    since_ns: int | None = None
    until_ns: int | None = None
    tail: int | None = None
    """That many last lines; None for all."""
    follow: bool = False


# -- containers


class Create(Protocol):
    async def __call__(
        self,
        name: str | None,
        config: JsonObject,
        host_config: JsonObject,
        networking: JsonObject,
        platform: Platform | None,
    ) -> Created: ...


class ByReference(Protocol):
    async def __call__(self, ref: str) -> None: ...


class Stop(Protocol):
    async def __call__(self, ref: str, signal: str | None, timeout_s: int | None) -> None: ...


class Kill(Protocol):
    async def __call__(self, ref: str, signal: str) -> None: ...


class Wait(Protocol):
    async def subscribe(self, ref: str, condition: str) -> Awaitable[Ended]:
        """Begin to watch for `not-running`, `next-exit` or `removed`; what comes back waits.

        Raises:
            NoSuchContainer: no such container.
            InvalidArgument: no such condition.
        """


class Remove(Protocol):
    async def __call__(self, ref: str, force: bool, volumes: bool) -> None: ...  # noqa: FBT001 (Docker's two flags)


class Rename(Protocol):
    async def __call__(self, ref: str, name: str) -> None: ...


class InspectContainer(Protocol):
    async def __call__(self, ref: str, size: bool) -> JsonObject: ...  # noqa: FBT001


class ListContainers(Protocol):
    async def __call__(
        self,
        *,
        all: bool,  # noqa: A002 (Docker's word)
        limit: int,
        size: bool,
        filters: Filters,
    ) -> list[JsonObject]: ...


class Attach(Protocol):
    async def __call__(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, stream: bool, logs: bool
    ) -> Session: ...


class Logs(Protocol):
    def __call__(self, ref: str, wanted: LogWanted) -> AsyncIterator[LogLine]: ...


class Update(Protocol):
    async def __call__(self, ref: str, wanted: JsonObject) -> list[str]: ...


class Stats(Protocol):
    def __call__(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[JsonObject]: ...


class Resize(Protocol):
    async def __call__(self, ref: str, height: int, width: int) -> None: ...


class Top(Protocol):
    async def __call__(self, ref: str, ps_args: str) -> JsonObject: ...


class Changes(Protocol):
    async def __call__(self, ref: str) -> list[JsonObject]: ...


class Export(Protocol):
    def __call__(self, ref: str) -> AsyncIterator[bytes]: ...


class StatPath(Protocol):
    async def __call__(self, ref: str, path: str) -> JsonObject: ...


class CopyOut(Protocol):
    async def __call__(self, ref: str, path: str) -> tuple[JsonObject, AsyncIterator[bytes]]: ...


class CopyIn(Protocol):
    async def __call__(
        self,
        ref: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
    ) -> None: ...


class Commit(Protocol):
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
    ) -> ImageId: ...


# -- execs


class ExecCreate(Protocol):
    async def __call__(self, ref: str, config: JsonObject) -> str: ...


class ExecStart(Protocol):
    async def __call__(self, exec_id: str, *, detach: bool, tty: bool) -> Session | None: ...


class ExecInspect(Protocol):
    async def __call__(self, exec_id: str) -> JsonObject: ...


# -- images


class Pull(Protocol):
    async def __call__(
        self, reference: Reference, *, platform: Platform | None, auth: RegistryAuth | None, progress: ProgressSink
    ) -> ImageId: ...


class Push(Protocol):
    async def __call__(
        self, reference: Reference, *, platform: Platform | None, auth: RegistryAuth | None, progress: ProgressSink
    ) -> None: ...


class Load(Protocol):
    async def __call__(self, chunks: AsyncIterator[bytes], *, quiet: bool, progress: ProgressSink) -> None: ...


class Save(Protocol):
    def __call__(self, names: Sequence[str]) -> AsyncIterator[bytes]: ...


class Import(Protocol):
    async def __call__(
        self,
        chunks: AsyncIterator[bytes],
        reference: Reference | None,
        *,
        message: str,
        changes: Sequence[str],
        platform: Platform | None,
        progress: ProgressSink,
    ) -> ImageId: ...


class Tag(Protocol):
    async def __call__(self, name: str, reference: Reference) -> None: ...


class RemoveImage(Protocol):
    async def __call__(self, name: str, *, force: bool, prune: bool) -> list[JsonObject]: ...


class ListImages(Protocol):
    async def __call__(
        self,
        *,
        all: bool,  # noqa: A002
        filters: Filters,
        shared_size: bool,
    ) -> list[JsonObject]: ...


class InspectImage(Protocol):
    async def __call__(self, name: str) -> JsonObject: ...


class History(Protocol):
    async def __call__(self, name: str) -> list[JsonObject]: ...


# -- volumes and networks


class CreateVolume(Protocol):
    async def __call__(
        self, name: str, *, driver: str, labels: Mapping[str, str], options: Mapping[str, str]
    ) -> JsonObject: ...


class ListVolumes(Protocol):
    async def __call__(self, filters: Filters) -> JsonObject: ...


class RemoveVolume(Protocol):
    async def __call__(self, name: str, *, force: bool) -> None: ...


class Prune(Protocol):
    async def __call__(self, filters: Filters) -> JsonObject: ...


class ListNetworks(Protocol):
    async def __call__(self, filters: Filters) -> list[JsonObject]: ...


class ByName(Protocol):
    async def __call__(self, name: str) -> JsonObject: ...


class InspectDistribution(Protocol):
    async def __call__(self, reference: Reference, *, auth: RegistryAuth | None) -> JsonObject: ...


class LogIn(Protocol):
    async def __call__(self, auth: RegistryAuth) -> JsonObject: ...


# -- the engine itself


class Describe(Protocol):
    async def __call__(self) -> JsonObject: ...


class DiskUsage(Protocol):
    async def __call__(self, kinds: frozenset[str]) -> JsonObject: ...


class LendDataRoot(Protocol):
    async def __call__(self, pid: int, driver: str) -> JsonObject:
        """Promise the data root to a process, which will leave it with this storage driver. Raises Conflict."""


class WatchEvents(Protocol):
    def __call__(
        self, *, since_ns: int | None, until_ns: int | None, filters: Filters
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Watching begins when the context is entered; the events end at `until_ns`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Every verb by its name."""

    info: Describe
    version: Describe
    events: WatchEvents
    disk_usage: DiskUsage | None = None
    lend_data_root: LendDataRoot | None = None

    create: Create | None = None
    start: ByReference | None = None
    stop: Stop | None = None
    restart: Stop | None = None
    kill: Kill | None = None
    pause: ByReference | None = None
    unpause: ByReference | None = None
    wait: Wait | None = None
    remove: Remove | None = None
    rename: Rename | None = None
    inspect: InspectContainer | None = None
    list_containers: ListContainers | None = None
    attach: Attach | None = None
    logs: Logs | None = None
    resize: Resize | None = None
    top: Top | None = None
    stats: Stats | None = None
    update: Update | None = None
    changes: Changes | None = None
    export: Export | None = None
    stat_path: StatPath | None = None
    copy_out: CopyOut | None = None
    copy_in: CopyIn | None = None
    commit: Commit | None = None
    prune_containers: Prune | None = None

    exec_create: ExecCreate | None = None
    exec_start: ExecStart | None = None
    exec_inspect: ExecInspect | None = None
    exec_resize: Resize | None = None

    pull: Pull | None = None
    push: Push | None = None
    load: Load | None = None
    save: Save | None = None
    import_: Import | None = None
    tag: Tag | None = None
    remove_image: RemoveImage | None = None
    list_images: ListImages | None = None
    inspect_image: InspectImage | None = None
    history: History | None = None
    prune_images: Prune | None = None
    inspect_distribution: InspectDistribution | None = None
    log_in: LogIn | None = None

    create_volume: CreateVolume | None = None
    list_volumes: ListVolumes | None = None
    inspect_volume: ByName | None = None
    remove_volume: RemoveVolume | None = None
    prune_volumes: Prune | None = None

    list_networks: ListNetworks | None = None
    inspect_network: ByName | None = None
