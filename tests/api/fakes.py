"""Verbs written by hand that answer as the real ones do: what the edge is tested with, free of containers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field

from lamina.clock import SystemClock
from lamina.engine.events import WatchEvents
from lamina.engine.services import LogWanted, Services
from lamina.errors import Conflict, InvalidArgument, NoSuchContainer, NoSuchExec, NoSuchImage, NoSuchVolume, NotModified
from lamina.events import Events
from lamina.wire.engine.progress import Progress

ID = "4f" * 32
IMAGE = "sha256:" + "ab" * 32
STOPPED = "0e" * 32


def check(ref: str) -> None:
    if ref not in {ID, ID[:12], "web", "term"}:
        raise NoSuchContainer(f"No such container: {ref}")


@dataclass
class EchoSession:
    """A process that repeats what it reads, and says `bye` on stderr at the end of its input."""

    tty: bool = False
    received: bytearray = field(default_factory=bytearray)
    stdin_closed: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    _out: asyncio.Queue[tuple[int, bytes] | None] = field(default_factory=asyncio.Queue)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (item := await self._out.get()) is not None:
            yield item

    async def write_stdin(self, data: bytes) -> None:
        self.received += data
        self._out.put_nowait((1, data))

    async def close_stdin(self) -> None:
        self.stdin_closed.set()
        self._out.put_nowait((2, b"bye\n"))
        self._out.put_nowait(None)

    def say(self, data: bytes) -> None:
        self._out.put_nowait((1, data))

    def finish(self) -> None:
        self._out.put_nowait(None)

    async def aclose(self) -> None:
        self.closed.set()


@dataclass
class Flood:
    """A process that writes without end; counts what was taken."""

    tty: bool = True
    taken: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            yield 1, bytes(64 << 10)
            self.taken += 64 << 10

    async def write_stdin(self, data: bytes) -> None:
        raise BrokenPipeError

    async def close_stdin(self) -> None:
        return

    async def aclose(self) -> None:
        self.closed.set()


@dataclass
class Ended:
    status_code: int
    error: str = ""


@dataclass
class Created:
    id: str
    warnings: tuple[str, ...] = ()


@dataclass
class Line:
    stream: int
    time: str
    data: bytes
    attrs: Mapping[str, str] = field(default_factory=dict)


class FakeEngine:
    """What happened is kept in fields; what shall happen is set in fields."""

    def __init__(self) -> None:
        self.events = Events(SystemClock())
        self.calls: list[tuple[object, ...]] = []
        self.session: EchoSession | Flood = EchoSession()
        self.exec_session: EchoSession | None = EchoSession()
        self.ended = asyncio.Event()
        self.loaded = bytearray()
        self.pull_fails_after = -1
        self.pull_cancelled = asyncio.Event()
        self.pull_hangs = False
        self.more_logs = asyncio.Event()

    async def create(self, name, config, host_config, networking, platform) -> Created:
        self.calls.append(("create", name, config, host_config, networking, platform))
        if config.get("Image") == "absent":
            raise NoSuchImage("No such image: absent:latest")
        return Created(ID)

    async def start(self, ref: str) -> None:
        check(ref)
        if ref == "web":
            raise NotModified("already started")
        self.calls.append(("start", ref))

    async def stop(self, ref: str, signal: str | None, timeout_s: int | None) -> None:
        check(ref)
        self.calls.append(("stop", ref, signal, timeout_s))

    async def kill(self, ref: str, signal: str) -> None:
        check(ref)
        if signal == "SIGBAD":
            raise InvalidArgument("Invalid signal: SIGBAD")
        self.calls.append(("kill", ref, signal))

    async def by_ref(self, ref: str) -> None:
        check(ref)

    async def subscribe(self, ref: str, condition: str) -> Awaitable[Ended]:
        check(ref)
        if condition not in {"not-running", "next-exit", "removed"}:
            raise InvalidArgument(f'invalid condition: "{condition}"')

        async def waited() -> Ended:
            await self.ended.wait()
            return Ended(7)

        return waited()

    async def remove(self, ref: str, force: bool, volumes: bool) -> None:
        check(ref)
        if not force:
            raise Conflict(f'cannot remove container "/{ref}": container is running')
        self.calls.append(("remove", ref, force, volumes))

    async def update(self, ref: str, wanted: dict) -> list[str]:
        check(ref)
        self.calls.append(("update", ref, wanted))
        return ["discarded"]

    async def rename(self, ref: str, name: str) -> None:
        check(ref)

    async def inspect(self, ref: str, size: bool) -> dict:
        check(ref)
        body = container(tty=ref == "term")
        if size:
            body["SizeRw"], body["SizeRootFs"] = 12, 1234
        return body

    async def list_containers(self, *, all, limit, size, filters) -> list[dict]:  # noqa: A002
        self.calls.append(("list", all, limit, size, filters))
        return [summary()]

    async def attach(self, ref, *, stdin, stdout, stderr, stream, logs):
        check(ref)
        self.calls.append(("attach", ref, stdin, stdout, stderr, stream, logs))
        return self.session

    async def logs(self, ref: str, wanted: LogWanted):
        check(ref)
        self.calls.append(("logs", ref, wanted))
        yield Line(1, "2026-01-02T03:04:05.5Z", b"one\n")
        yield Line(2, "2026-01-02T03:04:05.6Z", b"two\n", {"b": "x y", "a": "1"})
        if wanted.follow:
            await self.more_logs.wait()
            yield Line(1, "2026-01-02T03:04:06Z", b"three\n")

    async def resize(self, ref: str, height: int, width: int) -> None:
        self.calls.append(("resize", ref, height, width))

    async def top(self, ref: str, ps_args: str) -> dict:
        check(ref)
        return {"Titles": ["PID", "CMD"], "Processes": [["1", "sleep 9"]]}

    async def stats(self, ref: str, *, stream: bool, one_shot: bool):
        check(ref)
        self.calls.append(("stats", ref, stream, one_shot))
        sample = {
            "name": "/web", "id": ID, "read": "2026-01-02T03:04:05Z", "preread": "0001-01-01T00:00:00Z",
            "pids_stats": {"current": 1}, "blkio_stats": {"io_service_bytes_recursive": []}, "num_procs": 0,
            "storage_stats": {}, "cpu_stats": {"cpu_usage": {"total_usage": 5}, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {"usage": 4096, "stats": {"cache": 1}},
        }  # fmt: skip
        yield sample
        if stream:
            yield sample

    async def changes(self, ref: str) -> list[dict]:
        check(ref)
        return [{"Path": "/etc", "Kind": 0}, {"Path": "/etc/motd", "Kind": 1}]

    async def export(self, ref: str):
        check(ref)
        yield b"tar"
        if ref == "web":
            raise OSError(5, "Input/output error")
        yield b"ball"

    async def stat_path(self, ref: str, path: str) -> dict:
        check(ref)
        return {"name": "motd", "size": 3, "mode": 420, "mtime": "2026-01-02T03:04:05Z", "linkTarget": ""}

    async def copy_out(self, ref: str, path: str):
        stat = await self.stat_path(ref, path)

        async def chunks():
            yield b"archive"

        return stat, chunks()

    async def copy_in(self, ref, path, chunks, *, no_overwrite_dir_non_dir, copy_uid_gid) -> None:
        check(ref)
        async for chunk in chunks:
            self.loaded += chunk
        self.calls.append(("copy_in", ref, path, no_overwrite_dir_non_dir, copy_uid_gid))

    async def commit(self, ref, reference, *, author, message, pause, changes, config) -> str:
        check(ref)
        self.calls.append(("commit", ref, reference, author, message, pause, changes, config))
        return IMAGE

    async def exec_create(self, ref: str, config: dict) -> str:
        check(ref)
        return "ee" * 32

    async def exec_start(self, exec_id: str, *, detach: bool, tty: bool):
        return None if detach else self.exec_session

    async def exec_inspect(self, exec_id: str) -> dict:
        if exec_id != "ee" * 32:
            raise NoSuchExec(f"No such exec instance: {exec_id}")
        return {
            "ID": exec_id, "Running": False, "ExitCode": 0,
            "ProcessConfig": {"tty": False, "entrypoint": "cat", "arguments": [], "privileged": False},
            "OpenStdin": True, "OpenStderr": True, "OpenStdout": True, "CanRemove": False, "ContainerID": ID,
            "DetachKeys": "", "Pid": 0,
        }  # fmt: skip

    async def pull(self, reference, *, platform, auth, progress) -> str:
        self.calls.append(("pull", str(reference), platform, auth))
        try:
            for at in range(3):
                if at == self.pull_fails_after:
                    raise NoSuchImage("manifest for nothing:here not found: manifest unknown")
                progress(Progress(status="Downloading", id="aa", current=at, total=3))
                progress(Progress(status="step", id=str(at)))
                await asyncio.sleep(0)
            if self.pull_hangs:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.pull_cancelled.set()
            raise
        return IMAGE

    async def push(self, reference, *, platform, auth, progress) -> None:
        progress(Progress(status="Pushed", id="aa"))

    async def load(self, chunks, *, quiet, progress) -> None:
        async for chunk in chunks:
            self.loaded += chunk
        progress(Progress(stream="Loaded image: a:b\n"))

    async def save(self, names):
        for name in names:
            if name == "absent":
                raise NoSuchImage("No such image: absent")
            yield name.encode()

    async def import_(self, chunks, reference, *, message, changes, platform, progress) -> str:
        async for chunk in chunks:
            self.loaded += chunk
        progress(Progress(status=IMAGE))
        return IMAGE

    async def tag(self, name, reference) -> None:
        self.calls.append(("tag", name, str(reference)))

    async def remove_image(self, name, *, force, prune) -> list[dict]:
        self.calls.append(("rmi", name, force, prune))
        return [{"Untagged": "a:b"}, {"Deleted": IMAGE}]

    async def list_images(self, *, all, filters, shared_size) -> list[dict]:  # noqa: A002
        return [image_summary()]

    async def inspect_image(self, name) -> dict:
        if name == "absent":
            raise NoSuchImage("No such image: absent")
        self.calls.append(("inspect_image", name))
        return image()

    async def history(self, name) -> list[dict]:
        return [{"Id": IMAGE, "Created": 1700000000, "CreatedBy": "CMD", "Tags": ["a:b"], "Size": 3, "Comment": ""}]

    async def volume(self, name: str) -> dict:
        if name == "absent":
            raise NoSuchVolume("get absent: no such volume")
        return volume(name)

    async def create_volume(self, name, *, driver, labels, options) -> dict:
        self.calls.append(("create_volume", name, driver, labels, options))
        return volume(name or "aa" * 32)

    async def list_volumes(self, filters) -> dict:
        return {"Volumes": [volume("data")], "Warnings": None}

    async def remove_volume(self, name, *, force) -> None:
        await self.volume(name)

    async def prune_containers(self, filters) -> dict:
        self.calls.append(("prune_containers", filters))
        return {"ContainersDeleted": [ID], "SpaceReclaimed": 3}

    async def prune_images(self, filters) -> dict:
        self.calls.append(("prune_images", filters))
        return {"ImagesDeleted": [{"Untagged": "a:b"}, {"Deleted": IMAGE}], "SpaceReclaimed": 3}

    async def prune_volumes(self, filters) -> dict:
        self.calls.append(("prune_volumes", filters))
        return {"VolumesDeleted": ["data"], "SpaceReclaimed": 3}

    async def list_networks(self, filters) -> list[dict]:
        return [network()]

    async def inspect_network(self, name) -> dict:
        return network()

    async def disk_usage(self, kinds) -> dict:
        return {
            "LayersSize": 10, "Images": [image_summary()], "Containers": [summary()],
            "Volumes": [volume("data") | {"UsageData": {"Size": 3, "RefCount": 0}}], "BuildCache": [],
        }  # fmt: skip

    async def info(self) -> dict:
        return {"ID": "x", "Containers": 1, "Images": 2, "Driver": "overlay2", "ServerVersion": "0.test",
                "SecurityOptions": ["name=seccomp,profile=builtin"], "RegistryConfig": {}}  # fmt: skip

    async def version(self) -> dict:
        return {"Version": "0.test", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64",
                "Components": [{"Name": "Engine", "Version": "0.test"}]}  # fmt: skip

    def services(self, **changed: object) -> Services:
        verbs = dict(  # noqa: C408
            info=self.info, version=self.version, events=WatchEvents(self.events, SystemClock()),
            disk_usage=self.disk_usage, create=self.create, start=self.start, stop=self.stop, restart=self.stop,
            kill=self.kill, pause=self.by_ref, unpause=self.by_ref, wait=self, remove=self.remove, rename=self.rename,
            inspect=self.inspect, list_containers=self.list_containers, attach=self.attach, logs=self.logs,
            resize=self.resize, top=self.top, changes=self.changes, export=self.export, stat_path=self.stat_path,
            copy_out=self.copy_out, copy_in=self.copy_in, commit=self.commit, exec_create=self.exec_create,
            exec_start=self.exec_start, exec_inspect=self.exec_inspect, exec_resize=self.resize, pull=self.pull,
            push=self.push, load=self.load, save=self.save, import_=self.import_, tag=self.tag,
            remove_image=self.remove_image, list_images=self.list_images, inspect_image=self.inspect_image,
            history=self.history, create_volume=self.create_volume, list_volumes=self.list_volumes,
            inspect_volume=self.volume, remove_volume=self.remove_volume, list_networks=self.list_networks,
            inspect_network=self.inspect_network, prune_containers=self.prune_containers, stats=self.stats, update=self.update,
            prune_images=self.prune_images, prune_volumes=self.prune_volumes,
        )  # fmt: skip
        return Services(**(verbs | changed))


def container(*, tty: bool = False) -> dict:
    return {
        "Id": ID, "Created": "2026-01-02T03:04:05Z", "Path": "sleep", "Args": ["9"],
        "State": {"Status": "running", "Running": True, "Paused": False, "Restarting": False, "OOMKilled": False,
                  "Dead": False, "Pid": 12, "ExitCode": 0, "Error": "", "StartedAt": "2026-01-02T03:04:05Z",
                  "FinishedAt": "0001-01-01T00:00:00Z"},
        "Image": IMAGE, "ResolvConfPath": "", "HostnamePath": "", "HostsPath": "", "LogPath": "", "Name": "/web",
        "RestartCount": 0, "Driver": "overlay2", "Platform": "linux", "MountLabel": "", "ProcessLabel": "",
        "AppArmorProfile": "", "ExecIDs": None, "HostConfig": {"NetworkMode": "bridge"},
        "GraphDriver": {"Name": "overlay2", "Data": {"MergedDir": "/m"}}, "Mounts": [],
        "Config": {"Hostname": "4f", "Tty": tty, "Image": "a:b", "Cmd": ["sleep", "9"], "Labels": {}},
        "NetworkSettings": {"Networks": {}, "Ports": {}},
    }  # fmt: skip


def summary() -> dict:
    return {"Id": ID, "Names": ["/web"], "Image": "a:b", "ImageID": IMAGE, "Command": "sleep 9", "Created": 1700000000,
            "Ports": [], "Labels": {}, "State": "running", "Status": "Up 3 seconds",
            "HostConfig": {"NetworkMode": "bridge"}, "NetworkSettings": {"Networks": {}}, "Mounts": []}  # fmt: skip


def image_summary() -> dict:
    return {"Id": IMAGE, "ParentId": "", "RepoTags": [], "RepoDigests": [], "Created": 1700000000, "Size": 33,
            "SharedSize": -1, "Labels": {}, "Containers": -1}  # fmt: skip


def image() -> dict:
    return {"Id": IMAGE, "RepoTags": ["a:b"], "RepoDigests": [], "Parent": "", "Comment": "",
            "Created": "2026-01-02T03:04:05Z", "DockerVersion": "", "Author": "", "Config": {"Cmd": ["sh"]},
            "Architecture": "amd64", "Os": "linux", "Size": 33,
            "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/u"}},
            "RootFS": {"Type": "layers", "Layers": ["sha256:" + "cd" * 32]},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"}}  # fmt: skip


def volume(name: str) -> dict:
    return {"CreatedAt": "2026-01-02T03:04:05Z", "Driver": "local", "Labels": None, "Mountpoint": f"/v/{name}/_data",
            "Name": name, "Options": None, "Scope": "local"}  # fmt: skip


def network() -> dict:
    return {"Name": "bridge", "Id": "bb" * 32, "Created": "2026-01-02T03:04:05Z", "Scope": "local", "Driver": "bridge",
            "EnableIPv4": True, "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": "172.17.0.0/16"}]},
            "Internal": False, "Attachable": False, "Ingress": False, "ConfigFrom": {"Network": ""},
            "ConfigOnly": False, "Containers": {}, "Options": {}, "Labels": {}}  # fmt: skip
