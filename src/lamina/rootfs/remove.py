"""Removing a tree that somebody untrusted filled (blocking).

Every step is relative to an open directory, so nothing outside can be reached by swapping a name for a symlink while
we work. Mounts inside are detached, never entered: behind one may lie a directory of the host.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from lamina.kernel import libc

_DEEPEST = 100
"""Levels that are held open at once; deeper trees are moved up first, so 100,000 levels need no more descriptors."""
_ATTEMPTS = 50
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove `path` and everything below it. A missing path is fine; a symlink is removed itself.

    Entries that other processes make meanwhile are removed too, within reason.

    Raises:
        OSError: with errno and name; what was removed until then is gone.
    """
    parent, name = os.path.split(os.path.normpath(path))
    try:
        parent_fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_at(parent_fd, name)
    finally:
        os.close(parent_fd)


def remove_at(parent_fd: int, name: str) -> None:
    """Remove the entry `name` of the open directory `parent_fd` with everything below it. A missing one is fine."""
    try:
        os.unlink(name, dir_fd=parent_fd)
        return
    except FileNotFoundError:
        return
    except IsADirectoryError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _detach(parent_fd, name)  # a file can be a mount point too
        os.unlink(name, dir_fd=parent_fd)
        return
    _Removal(parent_fd).directory(parent_fd, name, 0)


def empty_directory(directory_fd: int) -> None:
    """Remove everything in the open directory, which itself stays."""
    with os.scandir(directory_fd) as listing:
        names = [entry.name for entry in listing]
    for name in names:
        remove_at(directory_fd, name)


class _Removal:
    """One removal: knows the directory that deep branches are moved up into."""

    def __init__(self, top_fd: int) -> None:
        self._top_fd = top_fd
        self._moved = 0

    def directory(self, parent_fd: int, name: str, depth: int) -> None:
        for attempt in range(_ATTEMPTS):
            fd = _open_here(parent_fd, name)
            try:
                self._contents(fd, depth)
            finally:
                os.close(fd)
            try:
                os.rmdir(name, dir_fd=parent_fd)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno == errno.EBUSY:
                    _detach(parent_fd, name)
                elif error.errno != errno.ENOTEMPTY or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def _contents(self, fd: int, depth: int) -> None:
        with os.scandir(fd) as listing:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
        for name, is_directory in entries:
            if not is_directory:
                _unlink(fd, name)
            elif not _removed_empty(fd, name):
                self._branch(fd, name, depth)

    def _branch(self, fd: int, name: str, depth: int) -> None:
        if depth < _DEEPEST:
            self.directory(fd, name, depth + 1)
            return
        self._moved += 1
        moved = f".removing-{os.getpid()}-{id(self):x}-{self._moved}"
        os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=self._top_fd)
        self.directory(self._top_fd, moved, 0)


def _open_here(parent_fd: int, name: str) -> int:
    """Open a directory without following a symlink and without crossing into a mount: that is detached first."""
    while True:
        try:
            return libc.openat2(parent_fd, name, _OPEN_DIRECTORY, resolve=libc.RESOLVE_NO_XDEV)
        except OSError as error:
            if error.errno == errno.EXDEV:
                _detach(parent_fd, name)
            elif error.errno == errno.ENOSYS:
                return os.open(name, _OPEN_DIRECTORY, dir_fd=parent_fd)
            else:
                raise


def _unlink(fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _detach(fd, name)
        os.unlink(name, dir_fd=fd)


def _removed_empty(fd: int, name: str) -> bool:
    """Directories are often empty: then one call does it."""
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}:
            return False
        if error.errno == errno.ENOENT:
            return True
        raise
    return True


def _detach(parent_fd: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        libc.umount2(f"/proc/self/fd/{parent_fd}/{name}", libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)
