"""Open directories of a tree that is being written, by name (blocking).

Rules for editors: nothing is ever opened by a joined path. A name is walked component by component with O_NOFOLLOW from
a descriptor of the root; only where a component is a symlink does openat2 resolve it, inside the root. Descriptors are
kept by name, and all forgotten when anything is removed, because a kept name could then be stale.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from lamina.changeset import whiteout
from lamina.changeset.names import shown
from lamina.changeset.whiteout import WhiteoutDialect
from lamina.errors import UnsafeArchive, Unsupported
from lamina.kernel.openat import open_in_root

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARK = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 200


class Directories:
    """Descriptors of the directories below one root. They belong to this object; `forget` closes them all.

    `dialect` is how the layer says that names are gone; `made` is told every directory that is made because an entry
    needs it.
    """

    def __init__(self, root: Path, dialect: WhiteoutDialect, made: Callable[[bytes], None]) -> None:
        self.root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.umask = _umask()
        self._dialect = dialect
        self._made = made
        self._fds: dict[bytes, int] = {b"": self.root}
        self._inheriting: set[int] = set()
        self._note_group(self.root)

    def gives_group(self, fd: int) -> bool:
        """Would a new name in this directory get the directory's group?"""
        return fd in self._inheriting

    def mark_opaque(self, fd: int) -> None:
        """Hide what lies below a directory; nothing where no layer lies below.

        Raises:
            Unsupported: the file system does not keep the mark.
        """
        if self._dialect is WhiteoutDialect.AUFS:
            os.close(os.open(whiteout.OPAQUE, _MARK, 0o444, dir_fd=fd))
        mark = self._dialect.opaque_xattr
        if mark is None:
            return
        try:
            os.setxattr(fd, mark, b"y")
        except OSError as error:
            if error.errno in {errno.ENOTSUP, errno.EPERM}:
                raise Unsupported(f"the storage cannot hold the attribute {mark}") from error
            raise

    def is_whiteout(self, found: os.stat_result) -> bool:
        """Is this a mark of the layer itself in the place of a file? Those of aufs have names of their own."""
        return self._dialect.opaque_xattr is not None and stat.S_ISCHR(found.st_mode) and found.st_rdev == 0

    def open(self, name: bytes, *, make: bool = True) -> int:
        """A descriptor of a directory of the layer, owned by the cache; missing ones are made 0755."""
        found = self._fds.get(name)
        if found is not None:
            return found
        if len(self._fds) > _KEPT:
            self.forget()
        parts = name.split(b"/")
        depth = len(parts) - 1
        while depth and b"/".join(parts[:depth]) not in self._fds:
            depth -= 1
        path = b"/".join(parts[:depth])
        fd = self._fds[path]
        for part in parts[depth:]:
            above, fd = path, self._step(fd, part, path, make=make)
            path = path + b"/" + part if path else part
            self._fds[path] = fd
            self._note_group(fd)
            if above and len(self._fds) > 2 * _KEPT:
                self._close(above)  # a very deep name: keep only the end of it open
        return fd

    def _step(self, fd: int, part: bytes, above: bytes, *, make: bool) -> int:
        path = above + b"/" + part if above else part
        try:
            return os.open(part, OPEN_DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            if not make:
                raise UnsafeArchive(f"this layer has no directory {shown(path)}") from None
        except NotADirectoryError:
            return self._step_over(fd, part, path, make=make)
        except OSError as error:
            raise unsafe(error, path) from error
        return self._make_parent(fd, part, path)

    def _step_over(self, fd: int, part: bytes, path: bytes, *, make: bool) -> int:
        """A component that is no directory: follow a symlink inside the root, replace a whiteout, refuse the rest."""
        found = os.stat(part, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            try:
                return open_in_root(self.root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise unsafe(error, path) from error
        if make and self.is_whiteout(found):
            os.unlink(part, dir_fd=fd)
            made = self._make_parent(fd, part, path)
            self.mark_opaque(made)
            return made
        raise UnsafeArchive(f"{shown(path)} is not a directory, but entries lie below it")

    def _make_parent(self, fd: int, part: bytes, path: bytes) -> int:
        if self._dialect is WhiteoutDialect.AUFS and part.startswith(whiteout.PREFIX):
            raise UnsafeArchive(f"{shown(path)} is a whiteout, but entries lie below it")
        try:
            os.mkdir(part, 0o755, dir_fd=fd)
        except OSError as error:
            raise unsafe(error, path) from error
        self._made(path)
        made = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
        if self.umask & 0o755:
            os.fchmod(made, 0o755)
        return made

    def _note_group(self, fd: int) -> None:
        if os.fstat(fd).st_mode & stat.S_ISGID:
            self._inheriting.add(fd)

    def _close(self, name: bytes) -> None:
        fd = self._fds.pop(name)
        self._inheriting.discard(fd)
        os.close(fd)

    def forget(self) -> None:
        """Close everything but the root: a name may mean another directory from now on."""
        for name in [name for name in self._fds if name]:
            self._close(name)

    def close(self) -> None:
        """Close everything. Twice is fine."""
        self.forget()
        if self.root >= 0:
            os.close(self.root)
            self.root = -1


def unsafe(error: BaseException, name: bytes) -> BaseException:
    """What an errno means about an entry; anything that is not the entry's fault goes on unchanged."""
    if isinstance(error, OverflowError):
        return UnsafeArchive(f"the entry {shown(name)} has an impossible device number")
    if not isinstance(error, OSError):
        return error
    match error.errno:
        case errno.ENAMETOOLONG:
            return UnsafeArchive(f"the name {shown(name)} is too long for the file system")
        case errno.ELOOP | errno.ENOTDIR | errno.ENOENT | errno.EXDEV | errno.EISDIR | errno.EINVAL:
            return UnsafeArchive(f"the entry {shown(name)} cannot be made inside its layer: {error.strerror}")
        case _:
            return error


def _umask() -> int:
    """The process's umask, without changing it: other threads may be creating files."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line[6:], 8)
    return 0o777  # unknown: set every mode
