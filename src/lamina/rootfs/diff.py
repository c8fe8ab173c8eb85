"""One directory tree against another, as `docker diff` tells it (blocking).

`changes` compares two complete trees. `upper_changes` gets the same answer from an overlay's directory of own changes,
touching only what was touched; that both agree is tested on random trees. Source: moby pkg/archive changes.go,
changes_linux.go, changes_unix.go.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from lamina.kernel import xattr

_CAPABILITY = "security.capability"
_SECOND = 1_000_000_000
_SWAPPED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""A name that is gone, or is something else than a moment ago: somebody writes while we look."""
_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY = _TOP | os.O_NOFOLLOW


class ChangeKind(IntEnum):
    """The numbers are those of the Engine API."""

    MODIFY = 0
    ADD = 1
    DELETE = 2

    @property
    def letter(self) -> str:
        """As `docker diff` prints it."""
        return "CAD"[self.value]


@dataclass(frozen=True, slots=True)
class Change:
    """One name that differs. `path` begins with `/`; bytes that are not UTF-8 are surrogate escapes."""

    kind: ChangeKind
    path: str


@dataclass(frozen=True, slots=True)
class Touched:
    """What a snapshot file system knows of a tree and the tree it is a snapshot of.

    An inode number that is not in `inodes` stands for the same file in both: same metadata, same extended attributes,
    for a directory the same names with the same inodes. Below a directory that is neither in `inodes` nor in `above`
    nothing differs; `above` None: that is not known.
    """

    inodes: frozenset[int]
    above: frozenset[int] | None = None

    def may_differ_below(self, inode: int) -> bool:
        return self.above is None or inode in self.above or inode in self.inodes


def changes(new: Path, old: Path | None, touched: Touched | None = None) -> list[Change]:
    """What makes `old` (None: nothing) into `new`: a directory before its content, names in byte order.

    A directory with changes inside is reported as modified, the root never is. What is below a deleted directory, or
    below one that became something else, is not listed. `touched` saves looking at what it says is the same.
    """
    return _Comparison(touched).run(new, old)


def differs(old: os.stat_result, new: os.stat_result) -> bool:
    """Is the metadata different enough that the content may be?

    Times are equal when they agree in seconds and one of them has no fraction: layers carry whole seconds. Times and
    sizes of directories are no measure of change.
    """
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    if stat.S_ISDIR(old.st_mode):
        return False
    return old.st_size != new.st_size or not _same_time(old.st_mtime_ns, new.st_mtime_ns)


def change_usage(new: Path, old: Path, touched: Touched | None = None) -> tuple[int, int]:
    """Bytes and inodes of what was added or modified: hard links once, directories without bytes."""
    size_bytes = 0
    seen: set[tuple[int, int]] = set()
    for change in changes(new, old, touched):
        if change.kind is ChangeKind.DELETE:
            continue
        try:
            status = os.lstat(f"{os.fspath(new)}{change.path}")
        except (FileNotFoundError, NotADirectoryError):
            continue  # it vanished meanwhile
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        if not stat.S_ISDIR(status.st_mode):
            size_bytes += status.st_size
    return size_bytes, len(seen)


@dataclass(slots=True)
class _Pair:
    """One directory of both trees; `old_fd` is -1 when there was none.

    `names` are left to look at; `entries` are those of the new tree, `inodes` the numbers in the old one. `at` is where
    a report of the directory itself would stand; `listed`: it stands there already.
    """

    place: str
    new_fd: int
    old_fd: int
    at: int = 0
    listed: bool = True
    same_device: bool = False
    entries: dict[str, os.DirEntry[str]] = field(default_factory=dict)
    inodes: dict[str, int] = field(default_factory=dict)
    names: Iterator[str] = field(default_factory=lambda: iter(()))

    def close(self) -> None:
        os.close(self.new_fd)
        if self.old_fd >= 0:
            os.close(self.old_fd)


class _Comparison:
    """One walk through two trees, by descriptors: a name that is swapped for a symlink meanwhile leads nowhere."""

    def __init__(self, touched: Touched | None) -> None:
        self._touched = touched
        self._found: list[Change] = []
        self._pending: list[_Pair] = []

    def run(self, new: Path, old: Path | None) -> list[Change]:
        try:
            new_fd = _opened(new, _TOP)
            self._push(_Pair("", new_fd, _opened_beside(new_fd, old, _TOP)))
            while self._pending:
                self._go_on(self._pending[-1])
        finally:
            for pair in self._pending:
                pair.close()
        return self._found

    def _go_on(self, pair: _Pair) -> None:
        """Look at the names of a directory up to one that must be looked into: that one is on top then."""
        for name in pair.names:
            entry = pair.entries.get(name)
            if entry is None:
                self._found.append(Change(ChangeKind.DELETE, f"{pair.place}/{name}"))
                continue
            try:
                if self._looks_into(pair, name, entry, pair.inodes.get(name)):
                    return
            except OSError as error:
                if error.errno not in _SWAPPED:
                    raise
        self._pending.pop().close()
        if not pair.listed and len(self._found) > pair.at:
            self._found.insert(pair.at, Change(ChangeKind.MODIFY, pair.place))

    def _looks_into(self, pair: _Pair, name: str, entry: os.DirEntry[str], inode: int | None) -> bool:
        """Report one name if it is new, or different itself; a directory that has to be looked into is pushed."""
        at = len(self._found)
        place = f"{pair.place}/{name}"
        if inode is not None and inode == entry.inode() and self._is_same(pair, inode):
            if self._touched is None or not self._touched.may_differ_below(inode):
                return False
            was_directory = is_directory = entry.is_dir(follow_symlinks=False)
        else:
            now = entry.stat(follow_symlinks=False)
            is_directory = stat.S_ISDIR(now.st_mode)
            was_directory = inode is not None and self._was_directory(pair, name, place, now)
            if inode is None:
                self._found.append(Change(ChangeKind.ADD, place))
        if is_directory:
            new_fd = _opened(name, _DIRECTORY, pair.new_fd)
            old_fd = _opened_beside(new_fd, name if was_directory else None, _DIRECTORY, pair.old_fd)
            self._push(_Pair(place, new_fd, old_fd, at, listed=len(self._found) > at))
        return is_directory

    def _was_directory(self, pair: _Pair, name: str, place: str, now: os.stat_result) -> bool:
        """Report a name of both trees if it is different; was it a directory?"""
        before = os.stat(name, dir_fd=pair.old_fd, follow_symlinks=False)
        if differs(before, now) or (_may_have_other_xattrs(before, now) and _capability_differs(pair, name)):
            self._found.append(Change(ChangeKind.MODIFY, place))
        return stat.S_ISDIR(before.st_mode)

    def _is_same(self, pair: _Pair, inode: int) -> bool:
        """One number in both trees: is it one file?"""
        return pair.same_device if self._touched is None else inode not in self._touched.inodes

    def _push(self, pair: _Pair) -> None:
        self._pending.append(pair)
        new, old = os.fstat(pair.new_fd), None if pair.old_fd < 0 else os.fstat(pair.old_fd)
        pair.entries = _entries(pair.new_fd)
        touched = self._touched
        if old is None:
            pair.names = iter(_in_order(pair.entries))
        elif touched is not None and new.st_ino == old.st_ino and new.st_ino not in touched.inodes:
            inodes = {name: entry.inode() for name, entry in pair.entries.items()}
            pair.inodes = {name: inode for name, inode in inodes.items() if touched.may_differ_below(inode)}
            pair.names = iter(_in_order(pair.inodes))
        else:
            pair.same_device = new.st_dev == old.st_dev
            pair.inodes = {name: entry.inode() for name, entry in _entries(pair.old_fd).items()}
            pair.names = iter(_in_order(pair.entries.keys() | pair.inodes.keys()))


def _opened_beside(new_fd: int, old: Path | str | None, flags: int, dir_fd: int | None = None) -> int:
    """The old directory (-1: none); when it fails the new one is not kept open either."""
    if old is None:
        return -1
    try:
        return _opened(old, flags, dir_fd)
    except OSError:
        os.close(new_fd)
        raise


def _opened(directory: Path | str, flags: int, dir_fd: int | None = None) -> int:
    """Looking leaves no access time behind, which would be a change to a snapshot; only the owner may ask for that."""
    try:
        return os.open(directory, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(directory, flags, dir_fd=dir_fd)


def _entries(fd: int) -> dict[str, os.DirEntry[str]]:
    with os.scandir(fd) as listing:
        return {entry.name: entry for entry in listing}


def _in_order(names: Collection[str]) -> list[str]:
    """By their bytes; for ASCII that is how text is sorted anyway."""
    if all(map(str.isascii, names)):
        return sorted(names)
    return sorted(names, key=os.fsencode)


def _may_have_other_xattrs(before: os.stat_result, now: os.stat_result) -> bool:
    """Two attribute reads per file cost more than all the rest, so they are saved where nothing can be different.

    A snapshot of a file system, or of the disk below it, shows every file under its old number with its old change
    time; setting an attribute sets that time, and nobody can set it back. (Within one tick of the kernel's clock it
    could stay the same, but making a snapshot takes longer than that.) A copied tree has other numbers and times.
    """
    return (before.st_ino, before.st_ctime_ns) != (now.st_ino, now.st_ctime_ns)


def _capability_differs(pair: _Pair, name: str) -> bool:
    return _capability(pair.new_fd, name) != _capability(pair.old_fd, name)


def _capability(directory_fd: int, name: str) -> bytes | None:
    # Almost no file has one: an empty list is told faster than an attribute that is missing.
    path = f"/proc/self/fd/{directory_fd}/{name}"
    return xattr.get(path, _CAPABILITY) if _CAPABILITY in xattr.names(path) else None


def _note(
    found: list[Change], place: str, before: os.stat_result | None, now: os.stat_result, *, paths: tuple[str, str]
) -> bool:
    """Report one name if it is new or different itself; `paths` are (old, new)."""
    if before is None:
        found.append(Change(ChangeKind.ADD, place))
        return True
    if differs(before, now) or xattr.get(paths[0], _CAPABILITY) != xattr.get(paths[1], _CAPABILITY):
        found.append(Change(ChangeKind.MODIFY, place))
        return True
    return False


def _same_time(one: int, other: int) -> bool:
    if one == other:
        return True
    return one // _SECOND == other // _SECOND and (one % _SECOND == 0 or other % _SECOND == 0)


def upper_changes(upper: Path, opaque_xattr: str, lowers: Sequence[Path]) -> list[Change]:
    """What `upper` changes on the stack `lowers` (uppermost first), all in overlay's own form.

    The same list as `changes` of the two mounted trees gives, without mounting either. Whiteouts are 0:0 character
    devices; `opaque_xattr` is `trusted.overlay.opaque` or its `user.` form.
    """
    found: list[Change] = []
    _Upper(opaque_xattr, found).directory(os.fspath(upper), [os.fspath(lower) for lower in lowers], "")
    return found


class _Upper:
    """One walk through an upper directory, with the visible lower directories of the same name at hand."""

    def __init__(self, opaque_xattr: str, found: list[Change]) -> None:
        self._opaque = opaque_xattr
        self._found = found

    def directory(self, upper: str, lowers: list[str], prefix: str) -> None:
        with os.scandir(upper) as listing:
            names = {entry.name for entry in listing}
        hidden = self._hidden(upper, lowers) - names if lowers and self._is_opaque(upper) else set()
        for name in sorted(names | hidden, key=os.fsencode):
            if name in hidden:
                self._found.append(Change(ChangeKind.DELETE, f"{prefix}/{name}"))
            else:
                self._entry(f"{upper}/{name}", name, lowers, prefix)

    def _entry(self, path: str, name: str, lowers: list[str], prefix: str) -> None:
        try:
            now = os.lstat(path)
        except FileNotFoundError:
            return
        before, before_path, inner = self._lookup(name, lowers)
        place = f"{prefix}/{name}"
        if _is_whiteout(now):
            if before is not None:
                self._found.append(Change(ChangeKind.DELETE, place))
            return
        at = len(self._found)
        listed = _note(self._found, place, before, now, paths=(before_path, path))
        if stat.S_ISDIR(now.st_mode):
            self.directory(path, inner, place)
            if not listed and len(self._found) > at:
                self._found.insert(at, Change(ChangeKind.MODIFY, place))

    def _lookup(self, name: str, lowers: list[str]) -> tuple[os.stat_result | None, str, list[str]]:
        """How the stack below shows one name: its metadata and place, and the directories merged under it."""
        first: os.stat_result | None = None
        place = ""
        merged: list[str] = []
        for lower in lowers:
            path = f"{lower}/{name}"
            try:
                status = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if _is_whiteout(status):
                break
            if first is None:
                first, place = status, path
            if not stat.S_ISDIR(status.st_mode):
                break
            merged.append(path)
            if self._is_opaque(path):
                break
        return first, place, merged

    def _hidden(self, upper: str, lowers: list[str]) -> set[str]:
        """The names that the stack below shows in a directory, which an opaque one on top hides."""
        shown: set[str] = set()
        gone: set[str] = set()
        for lower in lowers:
            with os.scandir(lower) as listing:
                names = {entry.name for entry in listing}
            whiteouts = {name for name in names if _is_whiteout(os.lstat(f"{lower}/{name}"))}
            shown |= names - whiteouts - gone
            gone |= whiteouts
        return shown

    def _is_opaque(self, directory: str) -> bool:
        return xattr.get(directory, self._opaque) == b"y"


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
