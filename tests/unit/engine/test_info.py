from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lamina.containers.state import Status
from lamina.engine.disk_usage import DiskUsage, tree_bytes
from lamina.engine.host import EngineFacts, Program, engine_id, look
from lamina.engine.info import EngineVersion, Info
from lamina.events import Events
from lamina.kernel.cgroup import Arrangement, Cgroups
from lamina.storage.select import DriverReport
from tests.unit.engine.stores import Stores

NO_LIMITS = Cgroups(Arrangement.ABSENT, {}, None, frozenset())


def facts(**changed: object) -> EngineFacts:
    values: dict[str, object] = {
        "engine_id": "some-id",
        "engine_version": "1.2.3",
        "data_root": Path("/data"),
        "cgroups": NO_LIMITS,
        "drivers": lambda: (
            DriverReport("overlay2", usable=True, reason="works on extfs", remedy=""),
            DriverReport("btrfs", usable=False, reason="not built yet", remedy="use overlay2"),
        ),
        "runtimes": (Program("runc", "/usr/sbin/runc", "runc version 1.1.5+ds1"),),
        "monitor": Program("conmon", "/usr/bin/conmon", "conmon version 2.1.6"),
        "insecure_registries": ("127.0.0.0/8", "reg:5000"),
        "registry_mirrors": ("https://mirror/",),
    }
    return EngineFacts(**(values | changed))  # type: ignore[arg-type]


def info(stores: Stores, **changed: object) -> dict:
    verb = Info(
        facts(**changed),
        stores.driver,
        stores.containers,
        stores.images,
        Events(stores.clock),
        stores.clock,
        stores.workers,
    )
    return asyncio.run(verb())


@pytest.mark.root
def test_info_counts_and_names_the_drivers(stores):
    stores.container("one")
    stores.container("two").state.status = Status.PAUSED
    stores.container("three").state.status = Status.RUNNING
    told = info(stores)
    counts = [
        told[key] for key in ("Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped", "Images")
    ]
    assert counts == [3, 1, 1, 1, 1]
    assert told["Driver"] == stores.driver_name
    assert ["Driver btrfs", "not usable: not built yet (use overlay2)"] in told["DriverStatus"]
    assert (["Driver overlay2", "usable: works on extfs"] in told["DriverStatus"]) == (stores.driver_name == "vfs")
    assert told["RegistryConfig"]["InsecureRegistryCIDRs"] == ["127.0.0.0/8"]
    assert told["RegistryConfig"]["IndexConfigs"]["reg:5000"]["Secure"] is False
    assert (told["DefaultRuntime"], told["RuncCommit"]["ID"]) == ("runc", "1.1.5+ds1")


@pytest.mark.root
def test_info_fits_the_description_of_the_api(stores, engine_api_spec):
    from tests.api.contract import loaded

    loaded(engine_api_spec).validate("GET", "/info", 200, info(stores))
    version = asyncio.run(EngineVersion(facts(), stores.workers)())
    loaded(engine_api_spec).validate("GET", "/version", 200, version)
    assert [part["Name"] for part in version["Components"]] == ["Engine", "runc", "conmon"]


@pytest.mark.root
def test_limits_that_the_host_lacks_are_warned_of(stores):
    assert "WARNING: No memory limit support" in info(stores)["Warnings"]
    able = Cgroups(Arrangement.V2, {}, Path("/sys/fs/cgroup"), frozenset({"memory", "cpu", "cpuset", "pids"}))
    told = info(stores, cgroups=able)
    assert (told["MemoryLimit"], told["CgroupVersion"], told["OomKillDisable"]) == (True, "2", False)
    assert not any("memory limit" in warning for warning in told["Warnings"])


def test_the_host_is_told_as_it_is():
    host = look()
    assert host.cpus >= 1
    assert host.memory_bytes > 1 << 20
    assert host.operating_system
    assert host.open_files > 2


def test_the_identity_of_a_data_root_is_made_once(tmp_path):
    made = engine_id(tmp_path)
    assert made
    assert engine_id(tmp_path) == made
    (tmp_path / "engine-id").write_text("from-dockerd\n")
    assert engine_id(tmp_path) == "from-dockerd"


@pytest.mark.root
def test_disk_usage_counts_images_volumes_and_what_is_asked_for(stores):
    stores.container("one")
    stores.volumes.create("data", labels={}, options={})
    mountpoint = stores.volumes.get("data").mountpoint
    (mountpoint / "file").write_bytes(b"12345")

    async def no_rows(**_: object) -> list:
        return [{"Id": "x"}]

    usage = DiskUsage(
        stores.images, stores.tags, stores.layers, stores.containers, stores.volumes, no_rows, stores.workers
    )
    told = asyncio.run(usage(frozenset({"image", "container", "volume", "build-cache"})))
    assert told["LayersSize"] == sum(layer.size_bytes for layer in stores.layers.layers())
    assert (told["Images"][0]["Containers"], told["Images"][0]["SharedSize"]) == (1, 0)
    assert told["Volumes"][0]["UsageData"] == {"Size": 5, "RefCount": 0}
    assert told["Containers"] == [{"Id": "x"}]
    assert told["BuildCache"] == []
    assert list(asyncio.run(usage(frozenset({"volume"})))) == ["Volumes"]


def test_tree_bytes_counts_each_file_once_and_follows_nothing(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"abc")
    (tmp_path / "b").hardlink_to(tmp_path / "d" / "a")
    (tmp_path / "up").symlink_to("/usr")
    assert tree_bytes(tmp_path) == 3 + len("/usr")
    assert tree_bytes(tmp_path / "gone") == 0
