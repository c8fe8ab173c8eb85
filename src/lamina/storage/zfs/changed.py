"""Which files of a layer may differ from its parent's, by asking ZFS for the objects that were written (blocking).

A clone begins with the objects of the snapshot it was made from, number by number; writing, truncating, chmod, chown,
links and extended attributes all write a file's object, and every name that comes or goes writes its directory's. So an
object that was not written since stands for the same file in both. What is written is known of a snapshot of the layer
only, which is made for the question and removed again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from lamina.kernel import libc, zfs
from lamina.kernel.zfs_objects import Objects
from lamina.rootfs.diff import Touched
from lamina.storage.zfs.datasets import BETWEEN_MARK, origin_of
from lamina.storage.zfs.usage import looking_into

_MOST = 20_000
"""From here on asking where each of them is takes longer than looking at every file."""
_GONE = frozenset({errno.ENOENT, errno.ESTALE, errno.EINVAL, errno.ENOTSUP})
_SWAPPED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})


def touched_since_cloned(dataset: str) -> Touched | None:
    """What may differ between a clone and what it was cloned from; None where that is not known."""
    origin = origin_of(dataset)
    if not origin:
        return None
    with _as_it_is(dataset) as snapshot, Objects() as objects:
        try:
            numbers = [number for some in objects.changed(snapshot, origin) for number in some]
        except OSError as error:
            if error.errno in {errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOENT}:
                return None  # another ZFS than we know, or another history
            raise
        if len(numbers) > _MOST:
            return Touched(frozenset(numbers))
        with looking_into(snapshot) as root:
            return Touched(frozenset(numbers), _above(objects, snapshot, numbers, os.fspath(root)))


@contextmanager
def _as_it_is(dataset: str) -> Iterator[str]:
    """A snapshot for the length of a `with` block; one that a crash leaves is found by its mark at the next start."""
    name = f"{dataset}@{int.from_bytes(os.urandom(4), 'big') % 10**9}"
    zfs.snapshot(name, {BETWEEN_MARK: "1"})
    try:
        yield name
    finally:
        zfs.destroy_snapshots([name], deferred=True)


def _above(objects: Objects, snapshot: str, numbers: list[int], root: str) -> frozenset[int] | None:
    """The directories that objects lie in, up to the root; None when one of them has a second name somewhere."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directories = {""}
        for number in numbers:
            try:
                path = objects.path(snapshot, number)
            except OSError as error:
                if error.errno in _GONE:
                    continue  # none of a file: the tables that ZFS itself keeps
                raise
            status = _status(root_fd, path)
            if status is None:
                continue  # an extended attribute; its file was written too
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
                return None
            directories.update(_parents(path))
        found = (_status(root_fd, directory) for directory in directories)
        return frozenset(status.st_ino for status in found if status is not None)
    finally:
        os.close(root_fd)


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _status(root_fd: int, path: str) -> os.stat_result | None:
    try:
        fd = libc.openat2(
            root_fd,
            path.lstrip("/") or ".",
            os.O_PATH | os.O_NOFOLLOW,
            resolve=libc.RESOLVE_BENEATH | libc.RESOLVE_NO_XDEV,
        )
    except OSError as error:
        if error.errno in _SWAPPED:
            return None
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
