"""What the zfs driver stands on: one pool in a file for all cases, a dataset of its own for each."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.kernel import zfs
from lamina.kernel.mounts import Mount, mount, unmount

_numbers = itertools.count(1)


def no_zfs() -> str:
    return "" if zfs.DEVICE.exists() else "this kernel has no zfs"


@contextmanager
def zfs_dataset(place: Path) -> Iterator[Path]:
    """A new dataset, mounted at `place`. It stays in the pool when the case is over: removing it takes a second."""
    place.mkdir(parents=True, exist_ok=True)
    name = f"{pool()}/case-{next(_numbers)}"
    zfs.create(name, {"mountpoint": os.fspath(place)})
    mount(Mount("zfs", name, place))
    try:
        yield place
    finally:
        unmount(place, detach=True)


@functools.cache
def pool() -> str:
    """The name of a pool that lasts until the process ends."""
    scratch = Path("/scratch")
    directory = Path(tempfile.mkdtemp(prefix="lamina-zpool-", dir=scratch if scratch.is_dir() else None))
    name = f"lamina-test-{os.getpid()}"
    make_pool(name, directory / "disk", size_bytes=2 << 30)

    def clean() -> None:
        destroy_pool(name, directory / "disk")
        directory.rmdir()

    atexit.register(clean)
    return name


def make_pool(name: str, image: Path, *, size_bytes: int) -> None:
    with image.open("wb") as file:
        file.truncate(size_bytes)
    command("zpool", "create", "-f", "-O", "mountpoint=none", name, os.fspath(image))


def destroy_pool(name: str, image: Path) -> None:
    command("zpool", "destroy", "-f", name)
    image.unlink()


def command(*words: str) -> str:
    """What a program of zfs printed; it must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout
