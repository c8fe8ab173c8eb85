"""The whole engine on the drivers that only the virtual machine has: from pull to removal, and nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.kernel.devicemapper import DeviceMapper
from tests.conformance.grounds_devicemapper import DATA_BYTES, METADATA_BYTES, SMALL, on_loop_files
from tests.conformance.grounds_zfs import command, zfs_dataset
from tests.e2e import images
from tests.e2e.engines import Engine
from tests.e2e.test_registries import embedded

DRIVERS = ("devicemapper", "zfs")
pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Life:
    """One engine, a registry, and where the driver keeps layers."""

    engine: Engine
    registry: str

    @property
    def root(self) -> Path:
        assert self.engine.data_root is not None
        return self.engine.data_root

    def layers(self) -> set[str]:
        """The names of the layers that the driver has: devices by their records, datasets by the library's own tool."""
        if self.engine.storage_driver == "devicemapper":
            records = {"base", "deviceset-metadata", "transaction-metadata"}
            return {name for name in os.listdir(self.root / "devicemapper/metadata") if len(name) >= 64} - records
        parent = command("zfs", "list", "-Ho", "name", os.fspath(self.root)).strip()
        names = command("zfs", "list", "-rHo", "name", "-t", "all", parent).split()
        return {name for name in names if name != parent}

    def mounted(self) -> list[str]:
        """What is mounted below the data root, its own file system left out."""
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return [line.split()[1] for line in lines if line.split()[1].startswith(f"{self.root}/")]


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.vm_guest(name)) for name in DRIVERS])
def life(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Life]:
    driver: str = request.param
    options: tuple[str, ...] = ()
    with ExitStack() as undo:
        home = Path(tempfile.mkdtemp(prefix="vme"))
        undo.callback(shutil.rmtree, home)
        if driver == "zfs":
            root = undo.enter_context(zfs_dataset(home / "g"))
        else:
            root = undo.enter_context(on_loop_files("ext4")(home / "g")) / "root"
            sizes = {"dm.loopdatasize": str(DATA_BYTES), "dm.loopmetadatasize": str(METADATA_BYTES)}
            options = tuple(f"--storage-opt={key}={value}" for key, value in (SMALL["ext4"] | sizes).items())
        registry = undo.enter_context(embedded(tmp_path / "registry"))
        engine = Engine(storage_driver=driver, data_root=root, arguments=options)
        undo.callback(engine.destroy)
        engine.start()
        yield Life(engine, registry)


def test_the_engine_from_pull_to_removal(life: Life, tmp_path: Path) -> None:
    """One life rather than many tests: a daemon takes a quarter of a minute to start in there."""
    engine, address = life.engine, life.registry
    driver = engine.storage_driver
    told = json.loads(engine.out("info", "-f", "{{json .}}"))
    assert (told["Driver"], told["CgroupVersion"]) == (driver, "2")

    # push what was loaded, forget it, and pull it
    engine.docker("load", stdin=images.busybox())
    engine.docker("tag", "busybox", f"{address}/busybox:1")
    engine.docker("push", f"{address}/busybox:1")
    engine.docker("rmi", "busybox", f"{address}/busybox:1")
    assert life.layers() == set()
    engine.docker("pull", f"{address}/busybox:1")
    assert len(life.layers()) >= 1

    # run, with a network, limits, an exec and a copy
    engine.docker(
        "run", "-d", "--name", "box", "--memory", "64m", "--pids-limit", "50", "--cpu-shares", "512",
        f"{address}/busybox:1", "sh", "-c", "echo mine >/file; rm /etc/group; exec sleep 100000",
    )  # fmt: skip
    engine.docker("exec", "box", "sh", "-c", "until test -e /file && ! test -e /etc/group; do :; done")
    assert engine.out("exec", "box", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max") == "67108864\n50"
    assert engine.out("stats", "--no-stream", "--format", "{{.MemUsage}}", "box").endswith("/ 64MiB")
    assert sorted(engine.out("diff", "box").splitlines()) == ["A /file", "C /etc", "D /etc/group"]
    (tmp_path / "in").write_text("copied\n")
    engine.docker("cp", os.fspath(tmp_path / "in"), "box:/root/in")
    assert engine.out("inspect", "-f", "{{.GraphDriver.Name}}", "box") == driver
    assert engine.out("exec", "box", "cat", "/root/in") == "copied"
    engine.docker("pause", "box")
    assert engine.out("inspect", "-f", "{{.State.Status}}", "box") == "paused"
    engine.docker("unpause", "box")

    # the daemon ends in order, and again by force, while the container runs
    process = engine.out("inspect", "-f", "{{.State.Pid}}", "box")
    engine.stop()
    engine.start()
    engine.kill()
    engine.start()
    assert engine.out("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "box") == f"true {process}"
    assert engine.out("exec", "box", "cat", "/file") == "mine"

    # commit, push, and run it from the registry alone
    engine.docker("commit", "box", f"{address}/committed:1")
    engine.docker("push", f"{address}/committed:1")
    engine.docker("rm", "-f", "box")
    engine.docker("rmi", f"{address}/committed:1", f"{address}/busybox:1")
    assert life.layers() == set()
    engine.docker("pull", f"{address}/committed:1")
    assert engine.out("run", "--rm", f"{address}/committed:1", "cat", "/file", "/root/in") == "mine\ncopied"
    gone = engine.docker("run", "--rm", f"{address}/committed:1", "test", "-e", "/etc/group", check=False)
    assert gone.returncode == 1
    # nothing is left of any of it
    engine.docker("rmi", f"{address}/committed:1")
    assert engine.out("ps", "-aq") == engine.out("images", "-aq") == ""
    assert life.layers() == set()
    engine.stop()
    assert life.mounted() == []
    assert not [*Path("/sys/fs/cgroup").glob("**/lamina/*/")], "a cgroup is left"
    if driver == "devicemapper":
        mapper = DeviceMapper()
        assert [name for name in mapper.names() if name.startswith("docker-")] == []
        mapper.close()
