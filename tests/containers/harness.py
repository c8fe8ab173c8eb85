"""A small engine around the lifecycle: real runtime and monitor, one unpacked root file system, no network."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lamina.clock import SystemClock
from lamina.containers.attach import ContainerAttach, Wanted
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.record import Container
from lamina.containers.runtime import MonitoredRuntime, prepare_runtime
from lamina.containers.store import ContainerStore
from lamina.ids import new_container_id
from lamina.jsonvalue import JsonObject
from lamina.workers import Workers

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAPS = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]


class OneRoot:
    """`Resources` of containers that share one root file system and have no network."""

    def __init__(self, rootfs: Path) -> None:
        self.rootfs = rootfs
        self.held: set[str] = set()

    def acquire(self, container: Container) -> JsonObject:
        self.held.add(container.id)
        return minimal_spec(self.rootfs, container)

    def adopt(self, container: Container) -> None:
        self.held.add(container.id)

    def release(self, container: Container) -> None:
        self.held.discard(container.id)

    def discard(self, container: Container, *, volumes: bool) -> None:
        assert container.id not in self.held


def minimal_spec(rootfs: Path, container: Container) -> JsonObject:
    config = container.config
    sets = ("bounding", "effective", "permitted")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": bool(config.get("Tty")),
            "user": {"uid": 0, "gid": 0},
            "args": [container.path, *container.args],
            "env": [PATH, "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: list(CAPS) for name in sets},
        },
        "root": {"path": str(rootfs), "readonly": False},
        "hostname": container.id[:12],
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
        ],
        "linux": {
            "cgroupsPath": f"/lamina/{container.id}",
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


@dataclass
class Told:
    """Events, in order."""

    events: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None:
        assert kind == "container"
        self.events.append((action, actor_id, dict(attributes)))

    def actions(self, container: Container) -> list[str]:
        return [action for action, actor, _ in self.events if actor == container.id]


@dataclass
class Host:
    """Everything that a test may look at."""

    directory: Path
    store: ContainerStore
    runtime: MonitoredRuntime
    resources: OneRoot
    told: Told
    workers: Workers
    lifecycle: Lifecycle

    def add(self, *args: str, host_config: JsonObject | None = None, **config: object) -> Container:
        container_id = new_container_id()
        found = Container(
            id=container_id,
            name=f"test_{container_id[:12]}",
            created="2026-01-01T00:00:00Z",
            path=args[0],
            args=list(args[1:]),
            config={"Image": "busybox", "Labels": {"who": "test"}, **config},
            host_config=host_config or {},
            image_id=None,
            driver="overlay2",
        )
        self.store.add(found)
        return found

    async def output(self, container: Container) -> tuple[bytes, bytes, int]:
        """Run to the end as `docker run` does: attach, wait, start."""
        session = self.lifecycle.attach(container, Wanted())
        waiting = self.lifecycle.wait(container, "next-exit")
        await self.lifecycle.start(container)
        stdout, stderr = await collect(session)
        return stdout, stderr, (await waiting).status_code

    def log(self, container: Container) -> list[JsonObject]:
        path = self.store.directory(container.id) / f"{container.id}-json.log"
        return [json.loads(line) for line in path.read_bytes().splitlines()]


async def collect(session: ContainerAttach) -> tuple[bytes, bytes]:
    found: dict[int, list[bytes]] = {1: [], 2: []}
    async for stream, data in session.output():
        found[stream].append(data)
    await session.aclose()
    return b"".join(found[1]), b"".join(found[2])


@contextlib.asynccontextmanager
async def host(directory: Path, rootfs: Path) -> AsyncIterator[Host]:
    """The engine; at the end every container is killed and nothing stays."""
    workers = Workers()
    store = ContainerStore(directory / "containers", "overlay2")
    runtime = prepare_runtime(directory / "run")
    resources, told = OneRoot(rootfs), Told()
    try:
        async with asyncio.TaskGroup() as tasks:
            lifecycle = Lifecycle(
                store=store,
                runtime=runtime,
                resources=resources,
                events=told,
                workers=workers,
                clock=SystemClock(),
                tasks=tasks,
            )
            made = Host(directory, store, runtime, resources, told, workers, lifecycle)
            try:
                yield made
            finally:
                await lifecycle.aclose()
    finally:
        for container_id in runtime.known():
            runtime.delete(container_id)
        workers.close()
