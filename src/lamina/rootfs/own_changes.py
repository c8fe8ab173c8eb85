"""What a layer's directory of own changes makes of the layers below, in any dialect (blocking).

The same list as `changes` of the two mounted trees gives, without mounting either; that both agree is tested on random
trees. overlay's dialect is read by `rootfs/diff.py`; the one of aufs here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from lamina.changeset import whiteout
from lamina.changeset.whiteout import WhiteoutDialect
from lamina.kernel import xattr
from lamina.rootfs.diff import Change, ChangeKind, differs, upper_changes

_CAPABILITY = "security.capability"
_PREFIX = os.fsdecode(whiteout.PREFIX)
_OPAQUE = os.fsdecode(whiteout.OPAQUE)
_AUFS_PREFIX = os.fsdecode(whiteout.AUFS_PREFIX)


def own_changes(upper: Path, dialect: WhiteoutDialect, lowers: Sequence[Path]) -> list[Change]:
    """What `upper` changes on the stack `lowers` (uppermost first), all in `dialect`.

    Raises:
        ValueError: the dialect has no directories of own changes.
    """
    if dialect is WhiteoutDialect.AUFS:
        found: list[Change] = []
        _compare(os.fspath(upper), [os.fspath(lower) for lower in lowers], "", found)
        return found
    mark = dialect.opaque_xattr
    if mark is None:
        raise ValueError(f"{dialect} keeps no directory of own changes")
    return upper_changes(upper, mark, lowers)


def _compare(upper: str, lowers: list[str], prefix: str, found: list[Change]) -> None:
    """Report what one directory of own changes changes in the merged directories `lowers` of the same name."""
    names = os.listdir(upper)
    own = {name for name in names if not name.startswith(_PREFIX)}
    if lowers and _OPAQUE in names:
        gone = _shown(lowers) - own
    else:
        gone = {name.removeprefix(_PREFIX) for name in names if _is_whiteout(name)} - own
    for name in sorted(own | gone, key=os.fsencode):
        before, before_path, merged = _lookup(name, lowers)
        if name not in gone:
            _entry(f"{upper}/{name}", f"{prefix}/{name}", (before, before_path, merged), found)
        elif before is not None:
            found.append(Change(ChangeKind.DELETE, f"{prefix}/{name}"))


def _entry(path: str, place: str, below: tuple[os.stat_result | None, str, list[str]], found: list[Change]) -> None:
    """Report one name that the layer itself holds, and what is in it; `below` is what `_lookup` found."""
    before, before_path, merged = below
    try:
        now = os.lstat(path)
    except FileNotFoundError:
        return
    at = len(found)
    if before is None:
        found.append(Change(ChangeKind.ADD, place))
    elif differs(before, now) or xattr.get(before_path, _CAPABILITY) != xattr.get(path, _CAPABILITY):
        found.append(Change(ChangeKind.MODIFY, place))
    listed = len(found) > at
    if stat.S_ISDIR(now.st_mode):
        _compare(path, merged, place, found)
        if not listed and len(found) > at:
            found.insert(at, Change(ChangeKind.MODIFY, place))


def _lookup(name: str, lowers: list[str]) -> tuple[os.stat_result | None, str, list[str]]:
    """How the stack below shows one name: its metadata and place, and the directories merged under it."""
    first: os.stat_result | None = None
    place = ""
    merged: list[str] = []
    for lower in lowers:
        path = f"{lower}/{name}"
        status = _status(path)
        if status is not None:
            if first is None:
                first, place = status, path
            if not stat.S_ISDIR(status.st_mode):
                break
            merged.append(path)
            if _status(f"{path}/{_OPAQUE}") is not None:
                break
        if _status(f"{lower}/{_PREFIX}{name}") is not None:
            break
    return first, place, merged


def _shown(lowers: list[str]) -> set[str]:
    """The names that the merged directories show together."""
    shown: set[str] = set()
    gone: set[str] = set()
    for lower in lowers:
        names = os.listdir(lower)
        shown |= {name for name in names if not name.startswith(_PREFIX)} - gone
        gone |= {name.removeprefix(_PREFIX) for name in names if _is_whiteout(name)}
    return shown


def _is_whiteout(name: str) -> bool:
    return name.startswith(_PREFIX) and not name.startswith(_AUFS_PREFIX)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError as error:
        # Too long: with the prefix of a whiteout a name can exceed what a directory holds, so it is not in there.
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
            return None
        raise
