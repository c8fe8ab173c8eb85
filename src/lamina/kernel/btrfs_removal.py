"""Removing a btrfs subvolume that somebody untrusted filled: with the subvolumes that were made in it (blocking)."""

from __future__ import annotations

import errno
import os

from lamina.kernel import btrfs
from lamina.kernel.openat import open_in_root

_ATTEMPTS = 50
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_subvolume(parent_fd: int, name: str) -> list[int]:
    """Remove the subvolume `name` of the open directory, read-only or not. A missing one is fine.

    Returns the numbers of the subvolumes that are gone.

    Raises:
        NotADirectoryError: it is no subvolume.
        OSError: EPERM for who may not, ENOTEMPTY when subvolumes keep appearing in it.
    """
    gone: list[int] = []
    for _ in range(_ATTEMPTS):
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
        except FileNotFoundError:
            return gone
        try:
            if not btrfs.is_root_of_subvolume(fd):
                raise NotADirectoryError(errno.ENOTDIR, "no subvolume", name)
            number = btrfs.subvolume_number(fd)
            if _destroyed(parent_fd, name):
                return [*gone, number]
            gone += _destroy_nested(fd, number)
        finally:
            os.close(fd)
    raise OSError(errno.ENOTEMPTY, "subvolumes keep appearing while their layer is removed", name)


def _destroyed(parent_fd: int, name: str) -> bool:
    """False when there are subvolumes in it."""
    try:
        btrfs.destroy_subvolume(parent_fd, name)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            return False
        if error.errno != errno.ENOENT:
            raise
    return True


def _destroy_nested(fd: int, number: int) -> list[int]:
    """The innermost go first. One that was made read-only keeps what is in it, so it is made writable."""
    nested = {inner.number: inner for inner in btrfs.nested_subvolumes(fd, number)}
    for inner in reversed(nested.values()):
        try:
            btrfs.destroy_subvolume_by_number(fd, inner.number)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            _make_writable(fd, inner.outer, nested)
            btrfs.destroy_subvolume_by_number(fd, inner.number)
    return list(nested)


def _make_writable(fd: int, number: int, nested: dict[int, btrfs.Nested]) -> None:
    """Walk down to a subvolume, one subvolume at a time: the whole path may be longer than a path can be."""
    steps: list[bytes] = []
    while number in nested:
        inner = nested[number]
        directory = btrfs.path_of_directory(fd, inner.outer, inner.directory)
        steps.append(directory + b"/" + inner.name if directory else inner.name)
        number = inner.outer
    at = os.dup(fd)
    try:
        for step in reversed(steps):
            inner_fd = open_in_root(at, step, _DIRECTORY, beneath=True, no_symlinks=True)
            os.close(at)
            at = inner_fd
        btrfs.set_read_only(at, read_only=False)
    finally:
        os.close(at)
