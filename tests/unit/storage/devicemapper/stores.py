"""A small store to break, for the tests of the devicemapper driver in the virtual machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lamina.ids import CacheId
from lamina.kernel.devicemapper import DeviceMapper
from lamina.kernel.dm_ioctl import Target
from lamina.storage.devicemapper.driver import DeviceMapperDriver
from lamina.storage.devicemapper.pool import parse_status
from lamina.storage.devicemapper.records import Transaction
from lamina.storage.mounting import Mounts
from tests.conformance.grounds_devicemapper import SMALL, on_loop_files

BASE, CHILD, OTHER = CacheId("a" * 64), CacheId("b" * 64), CacheId("c" * 64)
LOOPS = {"dm.loopdatasize": "2G", "dm.loopmetadatasize": "32M"}


class Store:
    """A driver on small loop files, or on a pool beside its root."""

    def __init__(self, root: Path, fstype: str = "ext4", **options: str) -> None:
        self.root = root
        self.fstype = fstype
        self.home = root / "devicemapper"
        self.options = {**SMALL[fstype], **LOOPS, **{f"dm.{key}": value for key, value in options.items()}}
        self.mapper = DeviceMapper()
        self.open()

    def open(self, **options: str) -> DeviceMapperDriver:
        """As after kill -9: whoever had it before is forgotten."""
        self.driver = DeviceMapperDriver(self.root, {**self.options, **{f"dm.{k}": v for k, v in options.items()}})
        self.mounts = Mounts(self.driver)
        return self.driver

    def layer(self, name: CacheId, parent: CacheId | None = None) -> None:
        self.driver.create(name, parent)
        with self.mounts.mounted(name) as tree:
            (tree / f"of-{name[0]}").write_text(name[0])
        self.driver.seal(name, durable=False)

    def names(self, layer: CacheId) -> list[str]:
        with self.mounts.mounted(layer) as tree:
            return sorted(os.listdir(tree))

    def let_go(self) -> None:
        """Remove the devices that nobody has open."""
        prefix = self.pool.removesuffix("pool")
        for name in self.mapper.names():
            device = self.mapper.find(name) if name.startswith(prefix) and name != self.pool else None
            if device is not None and not device.users:
                with suppress(OSError):  # just gone by itself
                    self.mapper.remove(name, deferred=False)

    @property
    def pool(self) -> str:
        return dict(self.driver.status())["Pool Name"]

    def message(self, text: str) -> None:
        self.mapper.message(self.pool, text)

    def transaction(self) -> int:
        return parse_status(self.mapper.status(self.pool)[0].params).transaction_id

    def has_device(self, device_id: int) -> bool:
        """Asked by making a snapshot of it."""
        try:
            self.message(f"create_snap 16777000 {device_id}")
        except OSError as error:
            if error.errno in {errno.ENODATA, errno.EINVAL}:
                return False
            raise
        self.message("delete 16777000")
        return True

    def record(self, name: str) -> Path:
        return self.home / "metadata" / name

    def write_transaction(self, number: int, name: str, device_id: int) -> None:
        self.record("transaction-metadata").write_bytes(Transaction(number, name, device_id).encode())

    def close(self) -> None:
        self.driver.close()
        self.mapper.close()


@contextmanager
def store_at(place: Path, fstype: str = "ext4", **options: str) -> Iterator[Store]:
    with on_loop_files(fstype)(place) as ground:
        store = Store(ground / "root", fstype, **options)
        try:
            yield store
        finally:
            store.close()


def left_of(store: Store) -> list[str]:
    mapper = DeviceMapper()
    try:
        return [name for name in mapper.names() if name.endswith(f"-{store.home.stat().st_ino}-pool")]
    finally:
        mapper.close()


def device_number(path: Path) -> str:
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def thin_target(store: Store, device_id: int) -> Target:
    pool = store.mapper.find(store.pool)
    assert pool is not None
    return Target(0, 2048, "thin", f"{pool.number} {device_id}")


def wait_unshared(pid: int) -> None:
    own = os.readlink("/proc/self/ns/mnt")
    while os.readlink(f"/proc/{pid}/ns/mnt") == own:
        os.sched_yield()
