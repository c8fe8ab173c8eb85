"""A faithful copy of a tree (blocking).

Kept: content (shared with the original where the file system can, holes stay holes), types and device numbers, owners,
modes, extended attributes, nanosecond times, hard links inside the tree. Symlinks are copied, never followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from lamina.kernel import xattr

_FICLONE = 0x40049409
"""linux/fs.h: make a file share the other's blocks."""
_NOT_SHARED = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 30
_DEEPEST = 400
"""Levels: two descriptors are open for each. A path of 4,096 bytes rarely has a tenth of this."""


def copy_tree(source: Path, target: Path) -> None:
    """Copy the directory `source` to `target`, which is absent or an empty directory and gets the source's metadata.

    The source must not change meanwhile. On error the target holds what was copied so far.

    Raises:
        FileExistsError: the target has something of the same name in it.
        OSError: with errno and the name it was about.
    """
    source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileExistsError):
            target.mkdir(0o700)
        target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            TreeCopy(target_fd).directory(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


class TreeCopy:
    """One copy: the hard links seen so far, and what the file system turned out to be able to do."""

    def __init__(self, target_fd: int) -> None:
        self._target_fd = target_fd
        self._names: dict[tuple[int, int], str] = {}  # (device, inode) of the source → name below the target
        self._owner = (os.geteuid(), os.getegid())
        self._umask = _umask()
        self._shares = True
        self._ranges = True

    def directory(self, source_fd: int, target_fd: int, prefix: str = "", depth: int = 0) -> None:
        """Copy the content, then the metadata: writing into a directory changes its times."""
        if depth > _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"directories are nested more than {_DEEPEST} deep", prefix[:200])
        with os.scandir(source_fd) as listing:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
        for name, is_directory in entries:
            if is_directory:
                self._branch(name, source_fd, target_fd, f"{prefix}{name}/", depth + 1)
            else:
                self.leaf(name, source_fd, target_fd, prefix + name)
        self._metadata(os.fstat(source_fd), source_fd, target_fd, -1)

    def _branch(self, name: str, source_fd: int, target_fd: int, prefix: str, depth: int) -> None:
        os.mkdir(name, 0o700, dir_fd=target_fd)
        inner_source = os.open(name, _READ_DIRECTORY, dir_fd=source_fd)
        try:
            inner_target = os.open(name, _READ_DIRECTORY, dir_fd=target_fd)
            try:
                self.directory(inner_source, inner_target, prefix, depth)
            finally:
                os.close(inner_target)
        finally:
            os.close(inner_source)

    def leaf(self, name: str, source_fd: int, target_fd: int, place: str) -> None:
        """Copy what is no directory. `place` is the name below the target, for hard links to find each other."""
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if status.st_nlink > 1 and self._linked(status, name, target_fd, place):
            return
        self.alone(name, status, source_fd, target_fd)

    def alone(self, name: str, status: os.stat_result, source_fd: int, target_fd: int) -> None:
        """Copy one entry that is no directory, whatever other names it has."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            self._file(name, status, source_fd, target_fd)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
        elif kind == stat.S_IFSOCK:
            os.mknod(name, stat.S_IFSOCK | 0o600, dir_fd=target_fd)
        else:
            os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=target_fd)
        self._named_metadata(name, status, source_fd, target_fd)

    def _linked(self, status: os.stat_result, name: str, target_fd: int, place: str) -> bool:
        """Link to the first copy of the same inode, if there is one; else remember this place as the first."""
        key = (status.st_dev, status.st_ino)
        first = self._names.setdefault(key, place)
        if first is place:
            return False
        try:
            os.link(first, name, src_dir_fd=self._target_fd, dst_dir_fd=target_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._names[key] = place  # all the links it can have: the next ones go to a second copy
            return False
        return True

    def _file(self, name: str, status: os.stat_result, source_fd: int, target_fd: int) -> None:
        mode = stat.S_IMODE(status.st_mode)
        plain = mode & 0o777 & ~self._umask
        source = os.open(name, _READ_FILE, dir_fd=source_fd)
        try:
            target = os.open(name, _MAKE_FILE, plain, dir_fd=target_fd)
            try:
                if status.st_size:
                    self._content(source, target, status)
                self._metadata(status, source, target, plain)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _content(self, source: int, target: int, status: os.stat_result) -> None:
        if self._shares:
            try:
                fcntl.ioctl(target, _FICLONE, source)
                return
            except OSError as error:
                if error.errno not in _NOT_SHARED:
                    raise
                self._shares = False
        if status.st_blocks * 512 < status.st_size:
            self._sparse(source, target, status.st_size)
        else:
            self._range(source, target, 0, status.st_size)

    def _sparse(self, source: int, target: int, size: int) -> None:
        """Copy the data and leave the holes."""
        os.ftruncate(target, size)
        at = 0
        while at < size:
            try:
                start = os.lseek(source, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # only a hole is left
                raise
            at = os.lseek(source, start, os.SEEK_HOLE)
            self._range(source, target, start, at)

    def _range(self, source: int, target: int, start: int, end: int) -> None:
        while start < end and self._ranges:
            try:
                done = os.copy_file_range(source, target, min(end - start, _CHUNK), start, start)
            except OSError as error:
                if error.errno not in _NOT_SHARED:
                    raise
                self._ranges = False
                break
            if done == 0:
                return  # shorter than its size said
            start += done
        while start < end:
            data = os.pread(source, min(end - start, 1 << 20), start)
            if not data:
                return
            start += os.pwrite(target, data, start)

    def _metadata(self, status: os.stat_result, source: int, target: int, made_with: int) -> None:
        """Owner before mode (chown clears setuid) and before `security.capability` (which it drops); times last."""
        if (status.st_uid, status.st_gid) != self._owner:
            os.fchown(target, status.st_uid, status.st_gid)
        for name in os.listxattr(source):
            xattr.put(target, name, os.getxattr(source, name))
        mode = stat.S_IMODE(status.st_mode)
        if mode != made_with:
            os.fchmod(target, mode)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _named_metadata(self, name: str, status: os.stat_result, source_fd: int, target_fd: int) -> None:
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
        source, target = f"/proc/self/fd/{source_fd}/{name}", f"/proc/self/fd/{target_fd}/{name}"
        for key, value in xattr.read_all(source).items():
            xattr.put(target, key, value)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(target, stat.S_IMODE(status.st_mode))
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)


def _umask() -> int:
    """The process's umask without changing it, which would disturb other threads."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777  # before Linux 4.7: every file gets its mode by fchmod
