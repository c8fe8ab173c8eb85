"""A directory tree as a sequence of names with their metadata (blocking)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Seen:
    """One name of a tree. `name` is relative, bytes as the kernel has them, without leading `/`.

    `first` is the earlier name of the same inode when this one is a hard link to it, else None.
    """

    name: bytes
    status: os.stat_result
    first: bytes | None = None

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def walk(root: Path) -> Iterator[Seen]:
    """Every name below `root` (not itself): a directory before its content, siblings in byte order.

    Symlinks are not followed. Names that vanish meanwhile are left out.
    """
    top = os.fsencode(root)
    links: dict[tuple[int, int], bytes] = {}
    pending = _listed(top, b"")
    while pending:
        name = pending.pop()
        path = top + b"/" + name
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode):
            yield Seen(name, status)
            pending.extend(_listed(path, name + b"/"))
        elif status.st_nlink > 1:
            first = links.setdefault((status.st_dev, status.st_ino), name)
            yield Seen(name, status, None if first is name else first)
        else:
            yield Seen(name, status)


def _listed(directory: bytes, prefix: bytes) -> list[bytes]:
    """The names in a directory, last first: the caller takes from the end."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    names.sort(reverse=True)
    return [prefix + name for name in names]
