"""One directory tree against another, as `docker diff` tells it (blocking).

`changes` compares two complete trees. `upper_changes` gets the same answer from an overlay's directory of own changes,
touching only what was touched; that both agree is tested on random trees. Source: moby pkg/archive changes.go,
changes_linux.go, changes_unix.go.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from lamina.kernel import xattr

_CAPABILITY = "security.capability"
_SECOND = 1_000_000_000


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


def changes(new: Path, old: Path | None) -> list[Change]:
    """What makes `old` (None: nothing) into `new`: a directory before its content, names in byte order.

    A directory with changes inside is reported as modified, the root never is. What is below a deleted directory, or
    below one that became something else, is not listed.
    """
    found: list[Change] = []
    _compare(os.fspath(new), os.fspath(old) if old is not None else None, "", found)
    return found


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


def change_usage(new: Path, old: Path) -> tuple[int, int]:
    """Bytes and inodes of what was added or modified: hard links once, directories without bytes."""
    size_bytes = 0
    seen: set[tuple[int, int]] = set()
    for change in changes(new, old):
        if change.kind is ChangeKind.DELETE:
            continue
        status = os.lstat(f"{os.fspath(new)}{change.path}")
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        if not stat.S_ISDIR(status.st_mode):
            size_bytes += status.st_size
    return size_bytes, len(seen)


def _compare(new: str, old: str | None, prefix: str, found: list[Change]) -> None:
    """Report what differs below one directory; `old` is None when it was not there, or was no directory."""
    new_names = _inodes(new)
    old_names = _inodes(old) if old is not None else {}
    same_device = old is not None and os.lstat(new).st_dev == os.lstat(old).st_dev
    for name in sorted(new_names.keys() | old_names.keys(), key=os.fsencode):
        place = f"{prefix}/{name}"
        if name not in new_names:
            found.append(Change(ChangeKind.DELETE, place))
            continue
        if same_device and new_names[name] == old_names.get(name):
            continue  # one inode seen twice
        new_path, old_path = f"{new}/{name}", f"{old}/{name}"
        try:
            now = os.lstat(new_path)
        except FileNotFoundError:
            continue
        before = os.lstat(old_path) if name in old_names else None
        at = len(found)
        listed = _note(found, place, before, now, paths=(old_path, new_path))
        if stat.S_ISDIR(now.st_mode):
            inner_old = old_path if before is not None and stat.S_ISDIR(before.st_mode) else None
            _compare(new_path, inner_old, place, found)
            if not listed and len(found) > at:
                found.insert(at, Change(ChangeKind.MODIFY, place))


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


def _inodes(directory: str) -> dict[str, int]:
    with os.scandir(directory) as listing:
        return {entry.name: entry.inode() for entry in listing}


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
