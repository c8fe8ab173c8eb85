"""Figures of containers, in Docker's shape."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lamina.clock import ZERO_TIME, SystemClock
from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.engine.stats import Stats
from lamina.errors import NoSuchContainer
from lamina.ids import new_container_id
from lamina.kernel.cgroup import Arrangement, Cgroups
from lamina.workers import Workers


class Scene:
    def __init__(self, root: Path) -> None:
        self.cgroup = root / "cgroup"
        (root / "containers").mkdir()
        self.store = ContainerStore(root / "containers", "vfs")
        cgroups = Cgroups(Arrangement.V2, {}, self.cgroup, frozenset())
        self.verb = Stats(self.store, cgroups, SystemClock(), Workers(1), interval_s=0.01)

    def container(self, status: Status) -> Container:
        made = Container(
            id=new_container_id(), name="box", created="2020-01-01T00:00:00Z", path="sh", args=[], config={},
            host_config={}, image_id=None, driver="vfs",
        )  # fmt: skip
        made.state.status, made.state.pid = status, os.getpid()
        self.store.add(made)
        self.use(made, 1000)
        return made

    def use(self, container: Container, cpu_us: int) -> None:
        group = self.cgroup / "lamina" / container.id
        group.mkdir(parents=True, exist_ok=True)
        for name, content in {
            "cpu.stat": f"usage_usec {cpu_us}\n", "memory.current": "4096\n", "memory.max": "max\n",
            "memory.stat": "inactive_file 96\n", "pids.current": "3\n", "pids.max": "64\n",
        }.items():  # fmt: skip
            (group / name).write_text(content)

    def first(self, ref: str, **wanted: bool) -> dict:
        async def look() -> dict:
            async for figures in self.verb(ref, **wanted):
                return figures
            raise AssertionError("no figures")

        return asyncio.run(look())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_lone_sample_has_the_one_before_it_unless_it_is_one_shot(scene: Scene) -> None:
    box = scene.container(Status.RUNNING)
    found = scene.first("box", stream=False, one_shot=False)
    assert (found["name"], found["id"]) == ("/box", box.id)
    assert ZERO_TIME < found["preread"] < found["read"]
    assert found["cpu_stats"]["cpu_usage"]["total_usage"] == 1_000_000
    assert found["precpu_stats"]["cpu_usage"]["total_usage"] == 1_000_000
    assert found["cpu_stats"]["system_cpu_usage"] >= found["precpu_stats"]["system_cpu_usage"] > 0
    assert found["cpu_stats"]["online_cpus"] == os.cpu_count()
    assert found["pids_stats"] == {"current": 3, "limit": 64}
    assert found["memory_stats"]["usage"] == 4096
    assert found["memory_stats"]["stats"] == {"inactive_file": 96}
    assert found["memory_stats"]["limit"] > 1 << 20
    once = scene.first("box", stream=False, one_shot=True)
    assert once["preread"] == ZERO_TIME
    assert "system_cpu_usage" not in once["precpu_stats"]


def test_a_stream_goes_on_until_the_container_is_removed(scene: Scene) -> None:
    box = scene.container(Status.RUNNING)

    async def watch() -> list[int]:
        used = []
        async for figures in scene.verb("box", stream=True, one_shot=False):
            used.append(figures["cpu_stats"]["cpu_usage"]["total_usage"])
            used.append(figures["precpu_stats"]["cpu_usage"]["total_usage"])
            scene.use(box, 2000)
            if len(used) == 6:
                scene.store.forget(box)
        return used

    assert asyncio.run(watch()) == [1_000_000, 0, 2_000_000, 1_000_000, 2_000_000, 2_000_000]


def test_a_container_that_does_not_run_has_a_name_alone(scene: Scene) -> None:
    scene.container(Status.EXITED)
    found = scene.first("box", stream=False, one_shot=False)
    assert (found["name"], found["read"], found["memory_stats"]) == ("/box", ZERO_TIME, {})
    assert "networks" not in found


def test_an_unknown_container_is_refused(scene: Scene) -> None:
    with pytest.raises(NoSuchContainer, match="No such container: nobody"):
        scene.first("nobody", stream=True, one_shot=False)
