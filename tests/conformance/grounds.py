"""Grounds that more than one storage driver stands on: a disk in memory, and file systems with project quotas."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lamina.kernel.mounts import Mount, mount, unmount


@contextmanager
def memory(place: Path, size: str = "50%") -> Iterator[Path]:
    """A tmpfs, which may lie on a tmpfs."""
    place.mkdir(parents=True, exist_ok=True)
    mount(Mount("tmpfs", "tmpfs", place, data=f"size={size}"))
    try:
        yield place
    finally:
        unmount(place, detach=True)


@contextmanager
def image_file(place: Path, make: tuple[str, ...], *, size_bytes: int = 2 << 30, options: str = "") -> Iterator[Path]:
    """A file system in an image file beside `place`, mounted there. `make` is the mkfs command without the image.

    Raises:
        OSError: mkfs or the mount failed; the message is the program's, `errno` EINVAL.
    """
    place.mkdir(parents=True, exist_ok=True)
    image = place.with_name(f"{place.name}.img")
    with image.open("wb") as file:
        file.truncate(size_bytes)
    try:
        _run(*make, os.fspath(image))
        _run("mount", "-o", f"loop,{options}".rstrip(","), os.fspath(image), os.fspath(place))
        try:
            yield place
        finally:
            unmount(place, detach=True)  # the loop device goes with it
    finally:
        image.unlink()


@contextmanager
def disk_in_memory() -> Iterator[Path]:
    """A real ext4 whose writes wait for no disk: the end of every overlay mount writes the whole file system out."""
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="lamina-t-"))
        stack.callback(place.rmdir)
        top = stack.enter_context(memory(place))
        try:
            disk = stack.enter_context(image_file(top / "d", ("mkfs.ext4", "-q", "-I", "256"), options="discard"))
        except (OSError, FileNotFoundError):
            disk = top  # no loop devices here
        yield disk


@contextmanager
def xfs_with_project_quotas(place: Path) -> Iterator[Path]:
    with _needing_quotas(), image_file(place, ("mkfs.xfs", "-q"), size_bytes=1 << 30, options="prjquota") as ground:
        yield ground


@contextmanager
def ext4_with_project_quotas(place: Path) -> Iterator[Path]:
    make = ("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota")
    with _needing_quotas(), image_file(place, make, size_bytes=1 << 30, options="prjquota") as ground:
        yield ground


@contextmanager
def _needing_quotas() -> Iterator[None]:
    try:
        yield
    except MountRefusedError as error:
        pytest.skip(f"this kernel keeps no project quotas: {error}")


class MountRefusedError(OSError):
    """mkfs or mount said no."""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MountRefusedError(errno.EINVAL, f"{command[0]}: {done.stderr.strip().splitlines()[:1]}")
