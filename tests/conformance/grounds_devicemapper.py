"""What the devicemapper driver stands on: small pools, copied from one that was made once per process.

Making a file system takes a second in the virtual machine, copying its few blocks some milliseconds.
"""

from __future__ import annotations

import atexit
import errno
import functools
import itertools
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from lamina.errors import Unsupported
from lamina.kernel import loop
from lamina.kernel.devicemapper import DeviceMapper
from lamina.kernel.dm_ioctl import SECTOR
from lamina.rootfs.copytree import copy_tree
from lamina.rootfs.remove import remove_tree
from lamina.storage.devicemapper.driver import DeviceMapperDriver
from lamina.storage.devicemapper.pool import pool_table
from lamina.storage.devicemapper.probe import probe

DATA_BYTES = 2 << 30
METADATA_BYTES = 32 << 20
SMALL = {
    "ext4": {"dm.fs": "ext4", "dm.basesize": "96M", "dm.mkfsarg": "-J size=4"},
    "xfs": {"dm.fs": "xfs", "dm.basesize": "320M"},
}
_SIZES = {"dm.loopdatasize": str(DATA_BYTES), "dm.loopmetadatasize": str(METADATA_BYTES)}
_numbers = itertools.count(1)


@functools.cache
def no_devicemapper() -> str:
    try:
        probe()
    except Unsupported as error:
        return f"{error.message}; runs in the virtual machine"
    return ""


def on_loop_files(fstype: str) -> Callable[[Path], AbstractContextManager[Path]]:
    """A data root whose pool is in it."""

    @contextmanager
    def ground(place: Path) -> Iterator[Path]:
        place.mkdir(parents=True)
        copy_tree(_loop_pattern(fstype), place / "root")
        yield place

    return ground


def open_on_loop_files(fstype: str) -> Callable[[Path], DeviceMapperDriver]:
    return lambda root: DeviceMapperDriver(root, SMALL[fstype] | _SIZES)


@contextmanager
def on_a_pool(place: Path) -> Iterator[Path]:
    """A data root beside a pool that was made for it, as `dm.thinpooldev` wants it."""
    place.mkdir(parents=True)
    with a_pool(place, _pool_pattern() / "pool"):
        copy_tree(_pool_pattern() / "root", place / "root")
        yield place


def open_on_a_pool(root: Path) -> DeviceMapperDriver:
    name = (root.parent / "pool-name").read_text()
    return DeviceMapperDriver(root, SMALL["ext4"] | {"dm.thinpooldev": f"/dev/mapper/{name}"})


@contextmanager
def a_pool(place: Path, pattern: Path | None = None, *, data_bytes: int = DATA_BYTES) -> Iterator[str]:
    """A pool on two files in `place`; its name is in `pool-name` there too. With `pattern` the files are copies."""
    name = f"lamina-test-{os.getpid()}-{next(_numbers)}"
    files = place / "pool"
    if pattern is None:
        files.mkdir()
        for file, size in (("data", data_bytes), ("metadata", METADATA_BYTES)):
            with (files / file).open("wb") as made:
                made.truncate(size)
    else:
        copy_tree(pattern, files)
    (place / "pool-name").write_text(name)
    mapper = DeviceMapper()
    with loop.attached(files / "data") as data, loop.attached(files / "metadata") as metadata:
        mapper.create(name, pool_table(number(metadata), number(data), data_bytes // SECTOR, 128))
    try:
        yield name
    finally:
        remove_pool(mapper, name)
        mapper.close()


def remove_pool(mapper: DeviceMapper, name: str) -> None:
    """Devices that were closed a moment ago may still be going."""
    deadline = time.monotonic() + 10
    while True:
        try:
            mapper.remove(name, deferred=False)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def number(device: Path) -> str:
    found = device.stat().st_rdev
    return f"{os.major(found)}:{os.minor(found)}"


@functools.cache
def _loop_pattern(fstype: str) -> Path:
    """A data root with nothing but the base device in it."""
    place = _directory()
    DeviceMapperDriver(place / "root", SMALL[fstype] | _SIZES).close()
    for file in ("data", "metadata"):
        _without_zeros(place / "root/devicemapper/devicemapper" / file)
    return place / "root"


@functools.cache
def _pool_pattern() -> Path:
    """The same, beside its pool."""
    place = _directory()
    with ExitStack() as stack:
        stack.enter_context(a_pool(place))
        open_on_a_pool(place / "root").close()
    for file in ("data", "metadata"):
        _without_zeros(place / "pool" / file)
    return place


def _directory() -> Path:
    found = Path(tempfile.mkdtemp(prefix="lamina-dm-"))
    atexit.register(remove_tree, found)
    return found


def _without_zeros(file: Path) -> None:
    """A log full of zeros need not be copied each time."""
    subprocess.run(["fallocate", "--dig-holes", file], check=True)
