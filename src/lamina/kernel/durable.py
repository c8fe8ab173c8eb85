"""Writing files so that a crash leaves the old content or the new, never half (blocking).

The temporary name is the one dockerd uses (`.tmp-<name><digits>`), so that whoever reads a shared data root knows it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lamina.kernel import libc

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path`; when this returns, content and name are on disk. The file has exactly `mode`."""
    _replace(path, data, mode, sync=True)
    fsync_dir(path.parent)


def write_file_lazy(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` at once for every reader, but leave it to the kernel when it reaches the disk."""
    _replace(path, data, mode, sync=False)


def write_file_ordered(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` without waiting for the disk to keep it: after a power cut it is the old file or the new one.

    The content is written before the new name is, so the name never stands for a file without its content.
    """
    _replace(path, data, mode, sync=False, ordered=True)


def begin_writing(fd: int) -> None:
    """Have a small new file's content on its way to the disk, so that whatever is synced next comes after it.

    Blocks are allocated now; a later commit of the file system's journal waits for their content (ext4 data=ordered).
    Costs microseconds, where an fsync of each file would cost a commit of the journal each.
    """
    _write_range(fd, libc.SYNC_FILE_RANGE_WRITE)


def _write_range(fd: int, flags: int) -> None:
    try:
        libc.sync_file_range(fd, flags)
    except OSError as error:
        # A file system without write-back (tmpfs, some FUSE ones) has nothing to order.
        if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ESPIPE}:
            raise


def write_new_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that is not there yet, its content on disk; for a staged directory that is synced as a whole.

    Raises:
        FileExistsError: it is there.
    """
    fd = os.open(path, _CREATE, 0o600)
    try:
        _write_all(fd, data)
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_dir(path: Path) -> None:
    """Put the names in this directory on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: Path) -> None:
    """Put everything that was written to the file system of `path` on disk: cheaper than many fsyncs of a tree.

    Raises:
        OSError: also a write-back error of this file system since it was opened (Linux 5.8). Source: syncfs(2).
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.syncfs(fd)
    finally:
        os.close(fd)


def make_dirs(path: Path, mode: int = 0o700) -> None:
    """Make a directory and its missing parents, each with exactly `mode` whatever the umask. Again is fine."""
    if path.is_dir():
        return
    make_dirs(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(mode)


def _replace(path: Path, data: bytes, mode: int, *, sync: bool, ordered: bool = False) -> None:
    target = os.fspath(path)
    directory, name = os.path.split(target)
    temporary = os.path.join(directory, f".tmp-{name[:200]}{int.from_bytes(os.urandom(4), 'big')}")
    fd = os.open(temporary, _CREATE, 0o600)
    try:
        try:
            _write_all(fd, data)
            os.fchmod(fd, mode)
            if sync:
                os.fsync(fd)
            elif ordered:
                _write_range(fd, libc.SYNC_FILE_RANGE_WRITE_AND_WAIT)
        finally:
            os.close(fd)
        os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
