"""New limits for a container."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.containers.validate import Limits
from lamina.engine.update import Update
from lamina.errors import Conflict, InvalidArgument, NotServed, ProcessFailed
from lamina.ids import new_container_id
from lamina.workers import Workers

MIB = 1 << 20


class Kernel:
    """Takes limits, and tells what happened."""

    def __init__(self) -> None:
        self.set: list[dict] = []
        self.told: list[str] = []
        self.refuses = False

    def update(self, container_id, limits) -> None:
        if self.refuses:
            raise ProcessFailed("device or resource busy")
        self.set.append(limits)

    def tell(self, container, action: str, **more: str) -> None:
        self.told.append(action)


class Scene:
    def __init__(self, root: Path) -> None:
        self.kernel = Kernel()
        self.store = ContainerStore(root, "vfs")
        self.box = Container(
            id=new_container_id(), name="box", created="2020-01-01T00:00:00Z", path="sh", args=[], config={},
            host_config={"Memory": 400 * MIB, "MemorySwap": 800 * MIB, "CpuShares": 5, "PidsLimit": None}, image_id=None,
            driver="vfs",
        )  # fmt: skip
        self.store.add(self.box)
        limits = Limits(cpus=2)
        self.verb = Update(self.store, self.kernel, self.kernel, limits, 1, Workers(1))  # type: ignore[arg-type]

    def update(self, **wanted) -> list[str]:
        return asyncio.run(self.verb("box", wanted))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_running_container_is_limited_at_once_and_the_record_keeps_it(scene: Scene) -> None:
    scene.box.state.status = Status.RUNNING
    assert (
        scene.update(Memory=300 * MIB, CpuShares=0, Devices=[], MemorySwappiness=None, RestartPolicy={"Name": ""}) == []
    )
    assert scene.kernel.set == [{"memory": {"limit": 300 * MIB, "swap": 800 * MIB}, "cpu": {"shares": 5}}]
    assert scene.kernel.told == ["update"]
    again = ContainerStore(scene.store.directory(scene.box.id).parent, "vfs")
    again.load([scene.box.id])
    kept = again.resolve("box").host_config
    assert (kept["Memory"], kept["MemorySwap"], kept["CpuShares"]) == (300 * MIB, 800 * MIB, 5)


def test_one_that_does_not_run_is_limited_at_its_next_start(scene: Scene) -> None:
    scene.update(NanoCpus=1_500_000_000, PidsLimit=7)
    assert scene.kernel.set == []
    assert (scene.box.host_config["NanoCpus"], scene.box.host_config["PidsLimit"]) == (1_500_000_000, 7)


def test_what_the_kernel_refuses_is_not_recorded(scene: Scene) -> None:
    scene.box.state.status, scene.kernel.refuses = Status.RUNNING, True
    with pytest.raises(ProcessFailed):
        scene.update(Memory=300 * MIB)
    assert scene.box.host_config["Memory"] == 400 * MIB
    assert scene.kernel.told == []


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ({"Memory": 900 * MIB}, InvalidArgument, "smaller than already set memoryswap limit"),
        ({"Memory": 1}, InvalidArgument, "Minimum memory limit allowed is 6MB"),
        ({"NanoCpus": 3_000_000_000}, InvalidArgument, "Range of CPUs"),
        ({"RestartPolicy": {"Name": "sometimes"}}, InvalidArgument, "unknown policy 'sometimes'"),
        ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}}, InvalidArgument, "maximum retry count"),
        ({"Ulimits": [{"Name": "nofile"}]}, NotServed, "changing Ulimits"),
    ],
)
def test_what_makes_no_sense_changes_nothing(scene: Scene, wanted, error, words: str) -> None:
    before = dict(scene.box.host_config)
    with pytest.raises(error, match=words):
        scene.update(**wanted)
    assert scene.box.host_config == before


def test_what_is_going_is_not_changed(scene: Scene) -> None:
    scene.box.state.status = Status.REMOVING
    with pytest.raises(Conflict, match="marked for removal"):
        scene.update(Memory=300 * MIB)
