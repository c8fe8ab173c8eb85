"""A difference carried out in another tree, with everything that a layer's tar could not carry (blocking).

Sockets, holes, nanoseconds, every extended attribute: files come as they are. A new entry is made in a directory of its
own at the top and renamed into place, so that neither a default access list nor a set-group-id bit of its directory
reaches it, and no name ever shows half a file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lamina.errors import StorageFull, Unsupported
from lamina.kernel import xattr
from lamina.migration.difference import Difference, MakeDirectory, Put, Remove, Step
from lamina.rootfs.copytree import TreeCopy
from lamina.rootfs.remove import remove_at

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_HERE = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.EOVERFLOW, errno.ENODEV}
)
"""What a driver answers when it cannot hold an entry: whiteout devices on overlay, `.wh.` names on aufs, …"""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Lost:
    """An entry that the new driver cannot hold."""

    path: str
    reason: str


def carry(found: Difference, source: Path, target: Path, progress: Callable[[int], None] | None = None) -> list[Lost]:
    """Take the steps of `found` in `target`, a copy of what `found` starts from; content comes from `source`.

    `progress` is told the bytes of each file that is there. Returns what could not be carried.

    Raises:
        StorageFull: no room, or the layer's size limit is reached.
        OSError: with errno and the name it was about.
    """
    source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _Carrier(source_fd, target_fd) as carrier:
                return carrier.run(found, progress)
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFull(f"no room left in {target}: {error.strerror}") from error
            raise
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


class _Place:
    """The directory of the last name, kept open: names come in the order of a walk."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path = ""
        self._fd = root

    def directory(self, path: str) -> int:
        """A descriptor of the directory, which stays this object's. Symlinks are not followed."""
        if path != self._path:
            fd = _open_below(self._root, path)
            self.close()
            self._path, self._fd = path, fd
        return self._fd

    def close(self) -> None:
        if self._fd != self._root:
            os.close(self._fd)
        self._path, self._fd = "", self._root


class _Carrier:
    """One carrying; in `with`, which takes the directory for new entries away again."""

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = _Place(source), _Place(target)
        self._root = target
        self._copy = TreeCopy(-1)
        self._making = f".lamina-{os.urandom(12).hex()}"
        self._making_fd = -1
        self._root_times = (0, 0)
        self._lost: list[Lost] = []
        self._lost_below: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_making()
        self._source.close()
        self._target.close()

    def run(self, found: Difference, progress: Callable[[int], None] | None) -> list[Lost]:
        for step in found.steps:
            if step.path.startswith(self._lost_below):
                self._lost.append(Lost(step.path, "its directory is not there"))
                continue
            try:
                self._take(step)
            except (OSError, Unsupported) as error:
                self._give_up(step, error)
            if progress is not None and isinstance(step, Put) and step.size_bytes:
                progress(step.size_bytes)
        self._end_making()
        for path in sorted(found.dressed, key=lambda path: path.count("/"), reverse=True):
            if not f"{path}/".startswith(self._lost_below):
                self._dress(path, whole=found.dressed[path])
        return self._lost

    def _take(self, step: Step) -> None:
        parent, base = os.path.split(step.path)
        match step:
            case Remove():
                self._target.close()  # what is kept open may be what goes
                remove_at(self._target.directory(parent), base)
            case MakeDirectory():
                os.mkdir(base, 0o700, dir_fd=self._target.directory(parent))
            case Put(link_to=""):
                self._put(parent, base)
            case Put(link_to=first):
                self._link(parent, base, first)

    def _put(self, parent: str, base: str) -> None:
        making = self._making_directory()
        here = self._source.directory(parent)
        self._copy.alone(base, os.stat(base, dir_fd=here, follow_symlinks=False), here, making)
        os.rename(base, base, src_dir_fd=making, dst_dir_fd=self._target.directory(parent))

    def _link(self, parent: str, base: str, first: str) -> None:
        first_parent, first_base = os.path.split(first)
        above = _open_below(self._root, first_parent)
        try:
            there = self._target.directory(parent)
            remove_at(there, base)
            os.link(first_base, base, src_dir_fd=above, dst_dir_fd=there, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._put(parent, base)  # all the names that an inode can have here: the rest gets one of its own
        finally:
            os.close(above)

    def _give_up(self, step: Step, error: OSError | Unsupported) -> None:
        """Note what the driver cannot hold; any other failure goes on.

        Raises:
            OSError: the driver is not the reason.
        """
        if isinstance(error, OSError) and error.errno not in _NOT_HERE:
            raise error
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        self._lost.append(Lost(step.path, reason))
        if self._making_fd >= 0:
            remove_at(self._making_fd, os.path.basename(step.path))
        if isinstance(step, MakeDirectory):
            self._lost_below = (*self._lost_below, f"{step.path}/")

    def _dress(self, path: str, *, whole: bool) -> None:
        """Owner first, because it takes bits of the mode along; times last."""
        here, there = self._source.directory(path), self._target.directory(path)
        status = os.fstat(here)
        if whole:
            os.fchown(there, status.st_uid, status.st_gid)
            wanted = xattr.read_all(here)
            for name in xattr.names(there):
                if name not in wanted:
                    xattr.drop(there, name)
            for name, value in wanted.items():
                try:
                    xattr.put(there, name, value)
                except (OSError, Unsupported) as error:
                    self._lost.append(Lost(path, f"its attribute {name}: {error}"))
            os.fchmod(there, stat.S_IMODE(status.st_mode))
        os.utime(there, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _making_directory(self) -> int:
        """The directory for new entries: nobody's group and no access list are inherited in it."""
        if self._making_fd < 0:
            status = os.fstat(self._root)
            self._root_times = (status.st_atime_ns, status.st_mtime_ns)
            os.mkdir(self._making, 0o700, dir_fd=self._root)
            self._making_fd = os.open(self._making, _DIRECTORY, dir_fd=self._root)
            os.fchown(self._making_fd, 0, 0)
            for name in xattr.names(self._making_fd):
                if name.startswith("system.posix_acl_"):
                    xattr.drop(self._making_fd, name)
            os.fchmod(self._making_fd, 0o700)
        return self._making_fd

    def _end_making(self) -> None:
        if self._making_fd >= 0:
            os.close(self._making_fd)
            self._making_fd = -1
            remove_at(self._root, self._making)
            os.utime(self._root, ns=self._root_times)


def _open_below(root: int, path: str) -> int:
    """A new descriptor of a directory, reached name by name; a symlink on the way is an error."""
    fd = os.dup(root)
    for part in path.split("/") if path else ():
        above = fd
        try:
            fd = os.open(part, _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return fd
