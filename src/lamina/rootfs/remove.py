"""Removing a tree that somebody untrusted filled (blocking).

Every step is relative to an open directory, so nothing outside can be reached by swapping a name for a symlink while
we work. Mounts inside are detached, never entered: behind one may lie a directory of the host.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from lamina.kernel import btrfs, libc
from lamina.kernel.btrfs_removal import remove_subvolume

_DEEPEST = 100
"""Levels that are held open at once; deeper trees are moved up first, so 100,000 levels need no more descriptors."""
_ATTEMPTS = 50
_MAY_NOT = frozenset({errno.ENOTDIR, errno.EPERM, errno.EACCES, errno.ENOTTY})
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
        _remove_directory(parent_fd, name)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _detach(parent_fd, name)  # a file can be a mount point too
        os.unlink(name, dir_fd=parent_fd)


def empty_directory(directory_fd: int) -> None:
    """Remove everything in the open directory, which itself stays."""
    with os.scandir(directory_fd) as listing:
        names = [entry.name for entry in listing]
    for name in names:
        remove_at(directory_fd, name)


def _remove_directory(parent_fd: int, name: str) -> None:
    left = _ATTEMPTS
    while left:
        try:
            top_fd = _open_here(parent_fd, name)
        except FileNotFoundError:
            return
        try:
            if _removed_whole(parent_fd, name, top_fd):
                return
            removal = _Removal(top_fd)
            removal.contents(top_fd, 0)
        finally:
            os.close(top_fd)
        if _removed(parent_fd, name):
            return
        if not removal.moved:  # what is still there was not moved up by us: somebody keeps writing
            left -= 1
    raise OSError(errno.ENOTEMPTY, "files keep appearing while the directory is removed", name)


class _Removal:
    """One pass over a tree; branches below the deepest level are moved up into `top_fd`, for the next pass.

    They stay inside the tree, so that a crash leaves nothing anywhere else.
    """

    def __init__(self, top_fd: int) -> None:
        self._top_fd = top_fd
        self.moved = 0

    def contents(self, fd: int, depth: int) -> None:
        with os.scandir(fd) as listing:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
        for name, is_directory in entries:
            if not is_directory:
                _unlink(fd, name)
            elif _removed(fd, name):
                continue
            elif depth > _DEEPEST:
                self._move_up(fd, name)
            else:
                self._branch(fd, name, depth)

    def _branch(self, fd: int, name: str, depth: int) -> None:
        for _ in range(_ATTEMPTS):
            try:
                inner = _open_here(fd, name)
            except FileNotFoundError:
                return
            try:
                if _removed_whole(fd, name, inner):
                    return
                self.contents(inner, depth + 1)
            finally:
                os.close(inner)
            if _removed(fd, name):
                return
        raise OSError(errno.ENOTEMPTY, "files keep appearing while the directory is removed", name)

    def _move_up(self, fd: int, name: str) -> None:
        self.moved += 1
        os.rename(name, f".removing-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=self._top_fd)


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


def _removed(fd: int, name: str) -> bool:
    """Remove a directory if it is empty: many are from the start, so this comes before looking into them."""
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        if error.errno == errno.EBUSY:
            _detach(fd, name)
            return False
        if error.errno == errno.ENOENT:
            return True
        raise
    return True


def _removed_whole(parent_fd: int, name: str, fd: int) -> bool:
    """On btrfs a subvolume, read-only or not, goes as a whole. Who may not do that empties it like a directory."""
    if os.fstat(fd).st_ino != btrfs.ROOT_INODE:
        return False
    try:
        remove_subvolume(parent_fd, name)
    except OSError as error:
        if error.errno in _MAY_NOT:
            return False
        raise
    return True


def _detach(parent_fd: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        libc.umount2(f"/proc/self/fd/{parent_fd}/{name}", libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)
