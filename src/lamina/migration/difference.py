"""What one tree has that the tree it came from has not, to the last attribute (blocking).

Finer than what `docker diff` shows: nanoseconds, every extended attribute, which names share an inode, and content that
was changed without a trace in size and time.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from lamina.kernel import xattr

_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 20
_DEEPEST = 400
"""Levels: two descriptors are open for each. A path of 4,096 bytes rarely has a tenth of this."""


@dataclass(frozen=True, slots=True)
class Remove:
    """The name is gone; a directory with everything below it."""

    path: str


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """The directory is new; its content follows."""

    path: str


@dataclass(frozen=True, slots=True)
class Put:
    """What is no directory is new or another. `link_to` is an earlier name of the same inode, "" for its first one."""

    path: str
    size_bytes: int = 0
    link_to: str = ""


Step = Remove | MakeDirectory | Put


@dataclass(slots=True)
class Difference:
    """The steps in the order in which they can be taken; paths are relative to the tree's root, `""` is the root.

    `dressed` are the directories whose metadata has to be set when everything else is done: wholly (True), or the times
    alone, because something in them changes.
    """

    steps: list[Step] = field(default_factory=list)
    dressed: dict[str, bool] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Length of the files that have to be copied."""
        return sum(step.size_bytes for step in self.steps if isinstance(step, Put))


def difference(new: Path, old: Path | None) -> Difference:
    """What makes a copy of `old` (None: of nothing) into a copy of `new`. Neither may change meanwhile.

    Raises:
        OSError: with errno and the name it was about.
    """
    new_fd = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        old_fd = None if old is None else os.open(old, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            finder = _Finder()
            finder.directory(new_fd, old_fd, "", 0)
            return finder.result()
        finally:
            if old_fd is not None:
                os.close(old_fd)
    finally:
        os.close(new_fd)


@dataclass(slots=True)
class _Group:
    """The names of one inode, in the order of the walk."""

    paths: list[str] = field(default_factory=list)
    size_bytes: int = 0
    is_changed: bool = False


class _Finder:
    """One walk through both trees side by side."""

    def __init__(self) -> None:
        self._found = Difference()
        self._groups: dict[tuple[int, int], _Group] = {}

    def directory(self, new: int, old: int | None, prefix: str, depth: int) -> None:
        """Compare the content, then the directories themselves."""
        if depth > _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"directories are nested more than {_DEEPEST} deep", prefix[:200])
        before = _entries(old) if old is not None else {}
        now = _entries(new)
        for name in before.keys() - now.keys():
            self._changes_in(prefix)
            self._found.steps.append(Remove(prefix + name))
        for name, status in now.items():
            was = before.get(name)
            if stat.S_ISDIR(status.st_mode):
                self._directory_entry(name, was, new, old, prefix=prefix, depth=depth)
            else:
                self._leaf(name, status, was, new=new, old=old, prefix=prefix)
        if old is None or _is_dressed_otherwise(new, old):
            self._found.dressed[prefix.removesuffix("/")] = True

    def result(self) -> Difference:
        """With the names that share an inode put together again: all of them anew where one is."""
        first: dict[str, str] = {}
        for group in self._groups.values():
            if group.is_changed and len(group.paths) > 1:
                first.update(dict.fromkeys(group.paths, group.paths[0]))
        if not first:
            return self._found
        steps = [step for step in self._found.steps if not isinstance(step, Put) or step.path not in first]
        for group in self._groups.values():
            if group.paths[0] not in first:
                continue
            for path in group.paths:
                steps.append(Put(path, 0, group.paths[0]) if path != group.paths[0] else Put(path, group.size_bytes))
                self._changes_in(path[: len(path) - len(os.path.basename(path))])
        self._found.steps = steps
        return self._found

    def _directory_entry(
        self, name: str, was: os.stat_result | None, new: int, old: int | None, *, prefix: str, depth: int
    ) -> None:
        is_new = was is None or not stat.S_ISDIR(was.st_mode)
        if is_new:
            self._changes_in(prefix)
            if was is not None:
                self._found.steps.append(Remove(prefix + name))
            self._found.steps.append(MakeDirectory(prefix + name))
        inner_new = os.open(name, _READ_DIRECTORY, dir_fd=new)
        try:
            inner_old = None if is_new else os.open(name, _READ_DIRECTORY, dir_fd=old)
            try:
                self.directory(inner_new, inner_old, f"{prefix}{name}/", depth + 1)
            finally:
                if inner_old is not None:
                    os.close(inner_old)
        finally:
            os.close(inner_new)

    def _leaf(
        self,
        name: str,
        status: os.stat_result,
        was: os.stat_result | None,
        *,
        new: int,
        old: int | None,
        prefix: str,
    ) -> None:
        path = prefix + name
        is_changed = was is None or old is None or not _is_same(name, status, was, new=new, old=old)
        if status.st_nlink > 1:
            group = self._groups.setdefault((status.st_dev, status.st_ino), _Group(size_bytes=status.st_size))
            group.paths.append(path)
            group.is_changed |= is_changed
        if not is_changed:
            return
        self._changes_in(prefix)
        if was is not None and stat.S_ISDIR(was.st_mode):
            self._found.steps.append(Remove(path))
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        self._found.steps.append(Put(path, size))

    def _changes_in(self, prefix: str) -> None:
        self._found.dressed.setdefault(prefix.removesuffix("/"), False)


def _entries(fd: int) -> dict[str, os.stat_result]:
    with os.scandir(fd) as listing:
        return {
            entry.name: entry.stat(follow_symlinks=False) for entry in sorted(listing, key=lambda entry: entry.name)
        }


def _is_dressed_otherwise(new: int, old: int) -> bool:
    now, was = os.fstat(new), os.fstat(old)
    if (now.st_mode, now.st_uid, now.st_gid, now.st_mtime_ns) != (was.st_mode, was.st_uid, was.st_gid, was.st_mtime_ns):
        return True
    if (now.st_ino, now.st_ctime_ns) == (was.st_ino, was.st_ctime_ns):
        return False
    return xattr.read_all(new) != xattr.read_all(old)


def _is_same(name: str, now: os.stat_result, was: os.stat_result, *, new: int, old: int) -> bool:
    """Nothing of the entry differs.

    One inode number with one change time is one inode, seen twice (through a stack) or in a snapshot: everything that
    touches it changes that time. Otherwise the content is read: size and time of a file can be put back.
    """
    if (now.st_mode, now.st_uid, now.st_gid, now.st_rdev) != (was.st_mode, was.st_uid, was.st_gid, was.st_rdev):
        return False
    if (now.st_size, now.st_mtime_ns) != (was.st_size, was.st_mtime_ns):
        return False
    if (now.st_ino, now.st_ctime_ns) == (was.st_ino, was.st_ctime_ns):
        return True
    here, there = f"/proc/self/fd/{new}/{name}", f"/proc/self/fd/{old}/{name}"
    if xattr.read_all(here) != xattr.read_all(there):
        return False
    if stat.S_ISLNK(now.st_mode):
        return os.readlink(name, dir_fd=new) == os.readlink(name, dir_fd=old)
    return not stat.S_ISREG(now.st_mode) or not now.st_size or _same_content(name, new, old)


def _same_content(name: str, new: int, old: int) -> bool:
    one = os.open(name, _READ_FILE, dir_fd=new)
    try:
        other = os.open(name, _READ_FILE, dir_fd=old)
        try:
            while True:
                data = os.read(one, _CHUNK)
                if data != os.read(other, _CHUNK):
                    return False
                if not data:
                    return True
        finally:
            os.close(other)
    finally:
        os.close(one)
