"""Edits of a tree as values, and what a tree shows: the oracle is the same edits on a plain directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lamina.rootfs.copytree import copy_tree
from lamina.rootfs.remove import remove_tree

WHEN_NS = 1_600_000_000_123_456_789


class Edit(Protocol):
    """One change somebody makes in a mounted tree; every path is relative to its root."""

    def apply(self, root: Path) -> None: ...


@dataclass(frozen=True)
class Write:
    """Make a file, or replace one (a new inode)."""

    path: str
    data: bytes = b""
    mode: int = 0o644
    mtime_ns: int = WHEN_NS

    def apply(self, root: Path) -> None:
        place = root / self.path
        remove_tree(place)
        place.write_bytes(self.data)
        place.chmod(self.mode)
        os.utime(place, ns=(self.mtime_ns, self.mtime_ns))


@dataclass(frozen=True)
class Append:
    """Write into an existing file: the copy-up."""

    path: str
    data: bytes
    mtime_ns: int = WHEN_NS + 10**9

    def apply(self, root: Path) -> None:
        with (root / self.path).open("ab") as file:
            file.write(self.data)
        os.utime(root / self.path, ns=(self.mtime_ns, self.mtime_ns))


@dataclass(frozen=True)
class MakeDir:
    path: str
    mode: int = 0o755

    def apply(self, root: Path) -> None:
        (root / self.path).mkdir()
        (root / self.path).chmod(self.mode)


@dataclass(frozen=True)
class Symlink:
    path: str
    target: str

    def apply(self, root: Path) -> None:
        (root / self.path).symlink_to(self.target)
        os.utime(root / self.path, ns=(WHEN_NS, WHEN_NS), follow_symlinks=False)


@dataclass(frozen=True)
class HardLink:
    path: str
    existing: str

    def apply(self, root: Path) -> None:
        os.link(root / self.existing, root / self.path, follow_symlinks=False)


@dataclass(frozen=True)
class Node:
    """A device, fifo or socket."""

    path: str
    kind: int
    device: int = 0
    mode: int = 0o600

    def apply(self, root: Path) -> None:
        os.mknod(root / self.path, self.kind | 0o600, self.device)
        (root / self.path).chmod(self.mode)
        os.utime(root / self.path, ns=(WHEN_NS, WHEN_NS))


@dataclass(frozen=True)
class Remove:
    path: str

    def apply(self, root: Path) -> None:
        remove_tree(root / self.path)


@dataclass(frozen=True)
class Rename:
    """As mv(1): a directory that the file system cannot rename is copied and removed."""

    path: str
    target: str

    def apply(self, root: Path) -> None:
        try:
            os.rename(root / self.path, root / self.target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy_tree(root / self.path, root / self.target)
            remove_tree(root / self.path)


@dataclass(frozen=True)
class Chmod:
    path: str
    mode: int

    def apply(self, root: Path) -> None:
        (root / self.path).chmod(self.mode)


@dataclass(frozen=True)
class Chown:
    path: str
    uid: int
    gid: int

    def apply(self, root: Path) -> None:
        os.chown(root / self.path, self.uid, self.gid, follow_symlinks=False)


@dataclass(frozen=True)
class SetXattr:
    path: str
    name: str
    value: bytes

    def apply(self, root: Path) -> None:
        os.setxattr(root / self.path, self.name, self.value, follow_symlinks=False)


def apply_edits(root: Path, edits: Sequence[Edit]) -> None:
    for edit in edits:
        edit.apply(root)


@dataclass(frozen=True)
class Shown:
    """What one name shows. `links` are all names of the inode, empty for a single one; directories have no times."""

    kind: str
    mode: int
    uid: int
    gid: int
    content: bytes = b""
    device: int = 0
    mtime_ns: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    links: tuple[str, ...] = ()


def shown(root: Path, *, with_links: bool = True) -> dict[str, Shown]:
    """The whole tree as a value: two trees are the same when these are equal. The root itself is `.`."""
    names: dict[tuple[int, int], list[str]] = {}
    statuses: dict[str, os.stat_result] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        for name in os.listdir(root / prefix):
            path = f"{prefix}{name}"
            status = os.lstat(root / path)
            statuses[path] = status
            if stat.S_ISDIR(status.st_mode):
                pending.append(path + "/")
            else:
                names.setdefault((status.st_dev, status.st_ino), []).append(path)
    found = {
        path: _shown(root / path, status, names.get((status.st_dev, status.st_ino), []) if with_links else [])
        for path, status in statuses.items()
    }
    found["."] = _shown(root, os.lstat(root), [])
    return found


def _shown(path: Path, status: os.stat_result, links: list[str]) -> Shown:
    kind = stat.S_IFMT(status.st_mode)
    content = b""
    if kind == stat.S_IFREG:
        content = path.read_bytes()
    elif kind == stat.S_IFLNK:
        content = os.fsencode(os.readlink(path))
    own = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.overlay.")]
    return Shown(
        kind=stat.filemode(status.st_mode)[0],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        content=content,
        device=status.st_rdev,
        mtime_ns=0 if kind == stat.S_IFDIR else status.st_mtime_ns,
        xattrs=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(own)),
        links=tuple(sorted(links)) if len(links) > 1 else (),
    )


BASE: tuple[Edit, ...] = (
    MakeDir("a subdir", 0o1705),
    Chown("a subdir", 1, 2),
    Write("a file", b"content", 0o222),
    Chmod("a file", 0o4222),
    MakeDir("etc"),
    Write("etc/hosts", b"127.0.0.1 localhost\n"),
    Symlink("etc/mtab", "/proc/mounts"),
)
"""What most cases begin with."""
