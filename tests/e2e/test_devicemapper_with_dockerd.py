"""A devicemapper root that goes back and forth between our daemon and a real dockerd, in the virtual machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina.ids import CacheId
from lamina.rootfs.diff import changes
from lamina.storage.devicemapper.driver import DeviceMapperDriver
from lamina.storage.devicemapper.records import decode_device, decode_device_set, decode_transaction
from lamina.storage.mounting import Mounts
from tests.conformance.trees import shown
from tests.e2e import images
from tests.e2e.engines import Engine

pytestmark = [pytest.mark.vm_guest("devicemapper"), pytest.mark.timeout(600)]

OPTIONS = {"dm.basesize": "512M", "dm.loopdatasize": "4G", "dm.loopmetadatasize": "64M"}


def engine_on(kind: str, data_root: Path, fstype: str) -> Engine:
    words = [f"--storage-opt={key}={value}" for key, value in {**OPTIONS, "dm.fs": fstype}.items()]
    if kind == "dockerd":
        words += ["--storage-opt=dm.override_udev_sync_check=true", "--bridge=none", "--iptables=false"]
        words += ["--ip6tables=false", "--ip-masq=false"]
    return Engine(kind=kind, storage_driver="devicemapper", arguments=words, data_root=data_root)


@contextmanager
def running(kind: str, data_root: Path, fstype: str) -> Iterator[Engine]:
    """The engine on a root that stays when it ends."""
    engine = engine_on(kind, data_root, fstype)
    try:
        yield engine.start()
    finally:
        engine.stop()
        shutil.rmtree(engine.home, ignore_errors=True)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "d"
    active = subprocess.run(["dmsetup", "ls"], capture_output=True, text=True, check=True).stdout
    assert "No devices" in active, f"left active: {active}"


def put(engine: Engine, container: str, path: str, text: str, place: Path) -> None:
    """Write one file into the writable layer of a container that never ran."""
    (place / "f").write_text(text)
    engine.docker("cp", str(place / "f"), f"{container}:{path}")


def diff(engine: Engine, container: str) -> list[str]:
    return sorted(engine.out("diff", container).splitlines())


def fill(engine: Engine, place: Path) -> list[str]:
    """An image of several layers, and a container with changes of its own; what `docker diff` says of it."""
    engine.docker("load", stdin=images.busybox())
    engine.docker("create", "--name", "first", "--net", "none", "busybox", "sh")
    put(engine, "first", "/one", "1\n", place)
    engine.docker("commit", "first", "two-layers")
    engine.docker("rm", "first")
    engine.docker("create", "--name", "edited", "--net", "none", "two-layers", "sh")
    put(engine, "edited", "/etc/only", "y\n", place)
    put(engine, "edited", "/etc/group", "changed\n", place)
    return diff(engine, "edited")


def records(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "devicemapper/metadata").iterdir()}


def check_records(root: Path) -> None:
    """Every record is one that both engines write, byte for byte; no device is named twice."""
    found = records(root)
    told = decode_transaction(found.pop("transaction-metadata"), "transaction")
    device_set = found.pop("deviceset-metadata")
    assert decode_device_set(device_set, "set").encode() == device_set
    devices = {name: decode_device(raw, name) for name, raw in found.items()}
    assert all(record.encode() == found[name] for name, record in devices.items())
    assert len({record.device_id for record in devices.values()}) == len(devices)
    assert max(record.transaction_id for record in devices.values()) <= told.number
    assert devices["base"].initialized
    assert json.loads(device_set)["next_device_id"] >= 1


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_what_dockerd_wrote_is_used_here_and_dockerd_goes_on(root: Path, tmp_path: Path, fstype: str) -> None:
    with running("dockerd", root, fstype) as dockerd:
        told = fill(dockerd, tmp_path)
        assert "A /etc/only" in told
        described = json.loads(dockerd.out("inspect", "-f", "{{json .GraphDriver.Data}}", "edited"))
        uuid = json.loads(records(root)["deviceset-metadata"])["BaseDeviceUUID"]
    looked_at_by_the_driver_alone(root, fstype, told, described)
    with running("lamina", root, fstype) as lamina:
        assert diff(lamina, "edited") == told
        info = json.loads(lamina.out("info", "-f", "{{json .}}"))
        assert ["Backing Filesystem", fstype] in info["DriverStatus"]
        assert any("loopback devices is strongly discouraged" in warning for warning in info["Warnings"])
        assert json.loads(lamina.out("inspect", "-f", "{{json .GraphDriver.Data}}", "edited")) == described
        assert lamina.out("run", "--rm", "--net", "none", "two-layers", "cat", "/one") == "1"
        lamina.docker("create", "--name", "ours", "--net", "none", "two-layers", "sh")
        put(lamina, "ours", "/mine", "m\n", tmp_path)
        lamina.docker("commit", "ours", "three-layers")
        ours = diff(lamina, "ours")
    check_records(root)
    assert json.loads(records(root)["deviceset-metadata"])["BaseDeviceUUID"] == uuid
    with running("dockerd", root, fstype) as dockerd:
        assert diff(dockerd, "edited") == told
        assert diff(dockerd, "ours") == ours
        assert dockerd.out("run", "--rm", "--net", "none", "three-layers", "cat", "/one", "/mine") == "1\nm"
        dockerd.docker("rm", "ours")
        dockerd.docker("rmi", "three-layers")
        left = set(records(root)) - {"base", "deviceset-metadata", "transaction-metadata"}
    driver = DeviceMapperDriver(root, {**OPTIONS, "dm.fs": fstype})
    assert driver.cache_ids() == left
    assert len(driver.warnings) == 1  # of loop files
    driver.close()
    assert sorted(path.name for path in (root / "devicemapper/mnt").iterdir()) == []


def looked_at_by_the_driver_alone(root: Path, fstype: str, told: list[str], described: dict[str, str]) -> None:
    """Ids, changes and trees are dockerd's; a layer of ours comes and goes."""
    expected = set(records(root)) - {"base", "deviceset-metadata", "transaction-metadata"}
    driver = DeviceMapperDriver(root, {**OPTIONS, "dm.fs": fstype})
    try:
        assert driver.cache_ids() == expected
        (mounted,) = (root / "image/devicemapper/layerdb/mounts").iterdir()
        rw, init = CacheId((mounted / "mount-id").read_text()), CacheId((mounted / "init-id").read_text())
        assert driver.describe(rw) == described
        mounts = Mounts(driver)
        with mounts.mounted(rw) as new, mounts.mounted(init) as old:
            found = changes(new, old)
            content = shown(new)
        assert sorted(f"{change.kind.letter} {change.path}" for change in found) == told
        assert content["etc/only"].content == b"y\n"
        driver.seal(init, durable=False)
        driver.create(CacheId("of-ours"), init)
        driver.remove(CacheId("of-ours"))
        assert driver.cache_ids() == expected
    finally:
        driver.close()


def test_dockerd_uses_what_we_wrote(root: Path, tmp_path: Path) -> None:
    with running("lamina", root, "xfs") as lamina:
        told = fill(lamina, tmp_path)
        lamina.docker("create", "--name", "large", "--net", "none", "--storage-opt", "size=1G", "two-layers", "sh")
    check_records(root)
    with running("dockerd", root, "xfs") as dockerd:
        assert diff(dockerd, "edited") == told
        assert dockerd.out("inspect", "-f", "{{.GraphDriver.Data.DeviceSize}}", "large") == str(1 << 30)
        assert dockerd.out("run", "--rm", "--net", "none", "two-layers", "cat", "/one") == "1"
        dockerd.docker("start", "-a", "edited", check=False)
        dockerd.docker("rm", "edited", "large")
        dockerd.docker("rmi", "two-layers", "busybox")
        assert set(records(root)) == {"base", "deviceset-metadata", "transaction-metadata"}
    with running("lamina", root, "xfs") as lamina:
        assert lamina.out("images", "-q") == ""
        fill(lamina, tmp_path)
        lamina.docker("rm", "edited")
        lamina.docker("rmi", "two-layers", "busybox")
    assert set(records(root)) == {"base", "deviceset-metadata", "transaction-metadata"}
