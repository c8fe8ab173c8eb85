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

from lamina.kernel import zfs
from lamina.kernel.zfs_objects import Objects
from lamina.rootfs.diff import Touched
from lamina.storage.zfs.datasets import BETWEEN_MARK, origin_of
from lamina.storage.zfs.usage import looking_into

_DEARER = 10
"""Asking where one object is takes as long as seeing so many names in a listing."""
_NO_FILE = frozenset({errno.ENOENT, errno.ESTALE, errno.EINVAL, errno.ENOTSUP})


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
        with looking_into(snapshot) as root:
            room = os.statvfs(root)
            if len(numbers) * _DEARER > room.f_files - room.f_ffree:
                return Touched(frozenset(numbers))
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
    directories = {""}
    for number in numbers:
        try:
            path = objects.path(snapshot, number)
        except OSError as error:
            if error.errno in _NO_FILE:
                continue  # a table that ZFS itself keeps
            raise
        status = _status(root, path)
        if status is None:
            continue  # an extended attribute; its file was written too
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            return None
        while (path := path.rpartition("/")[0]) not in directories:
            directories.add(path)
    found = (_status(root, directory) for directory in directories)
    return frozenset(status.st_ino for status in found if status is not None)


def _status(root: str, path: str) -> os.stat_result | None:
    """By name, for the kernel has just said it, and nobody can change a snapshot."""
    try:
        return os.lstat(f"{root}/{path}")
    except (FileNotFoundError, NotADirectoryError):
        return None
