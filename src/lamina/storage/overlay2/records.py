"""What overlay2 keeps per layer on disk, read into values (blocking).

`<home>/<id>/`: `diff/` own changes, `link` short name, `lower` the layers below, `work/` the kernel's, `committed` an
empty file once the layer is sealed, `merged/` only while mounted.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lamina.ids import CacheId
from lamina.kernel.durable import begin_writing
from lamina.rootfs.remove import remove_tree
from lamina.storage.overlay2.links import LINK_DIR, is_link, is_lower

_LONGEST = 8192
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(slots=True)
class Record:
    """One layer as its files tell it. `link` is empty when a crash lost it; `lower` is empty for a base layer.

    `sound` is false when a crash left half of `lower`: such a layer can only be removed.
    """

    cache_id: CacheId
    link: str
    lower: str
    sealed: bool
    sound: bool = True


def read_record(home: str, cache_id: CacheId) -> Record | None:
    """The layer's record, or None when there is no such directory."""
    directory = os.path.join(home, cache_id)
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        link, lower = _text(fd, "link") or "", _text(fd, "lower")
        sound = lower == "" or (lower is not None and is_lower(lower))
        return Record(cache_id, link if is_link(link) else "", lower or "", _exists(fd, "committed"), sound)
    finally:
        os.close(fd)


def read_records(home: str) -> dict[CacheId, Record]:
    """Every layer directory of the home; a lost `link` is found again through its symlink, which survives a crash."""
    with os.scandir(home) as listing:
        names = [entry.name for entry in listing if entry.is_dir(follow_symlinks=False)]
    found: dict[CacheId, Record] = {}
    for name in names:
        if not names_a_layer(name):
            continue
        record = read_record(home, CacheId(name))
        if record is not None:
            found[record.cache_id] = record
    lost = [record for record in found.values() if not record.link]
    if lost:
        _find_links(home, lost)
    return found


def drop_leftovers(home: str, present: Collection[CacheId]) -> None:
    """Remove what a crash left: short names of layers that are gone, and our own probes' directories."""
    links = os.path.join(home, LINK_DIR)
    for name in os.listdir(links):
        layer, _, last = (pointed_at(os.path.join(links, name)) or "").removeprefix("../").partition("/")
        if last == "diff" and layer not in present:
            os.unlink(os.path.join(links, name))
    for name in os.listdir(home):
        if name.startswith(("lamina-probe-", REMOVING_PREFIX)):
            remove_tree(Path(home, name))


REMOVING_PREFIX = "lamina-removing-"
"""What is on its way out; a crash leaves it to the next start."""
MERGED_SUFFIX = "-merged"
"""Directories that stand for the lowest layers of a deep stack."""
_PROBE_PREFIXES = ("check-overlayfs-support", "opaque-bug-check", "metacopy-check", "userxattr-check", "lamina-probe-")
"""Directories that a probe of this engine or of dockerd left when it was killed."""


def names_a_layer(name: str) -> bool:
    """Not everything in the home is one: `l`, what probes left, merged layers, `lost+found`."""
    if not _ID.fullmatch(name):
        return False
    return (
        name != LINK_DIR
        and not name.startswith((*_PROBE_PREFIXES, REMOVING_PREFIX))
        and not name.endswith(MERGED_SUFFIX)
    )


def write_small(directory_fd: int, name: str, text: str, mode: int) -> None:
    """Write a new small file; it is on disk with whatever is synced next: the layer's data, or a container's record."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory_fd)
    try:
        if text:
            os.write(fd, text.encode("ascii"))
        os.fchmod(fd, mode)
        begin_writing(fd)
    finally:
        os.close(fd)


def link_place(home: str, link: str) -> str:
    return os.path.join(home, LINK_DIR, link)


def lower_directories(home: Path, lower: tuple[str, ...]) -> tuple[Path, ...]:
    """Where short names point: `<home>/<id>/diff` each, uppermost first."""
    links = home / LINK_DIR
    return tuple(Path(os.path.normpath(links / os.readlink(links / link))) for link in lower)


def _text(directory_fd: int, name: str) -> str | None:
    """What a small file holds: nothing when it is not there, None when something else has its name."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a symlink, a socket
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return os.read(fd, _LONGEST).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def _exists(directory_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _find_links(home: str, lost: list[Record]) -> None:
    wanted = {f"../{record.cache_id}/diff": record for record in lost}
    links = os.path.join(home, LINK_DIR)
    for name in os.listdir(links):
        if is_link(name) and (record := wanted.get(pointed_at(os.path.join(links, name)) or "")) is not None:
            record.link = name


def pointed_at(path: str) -> str | None:
    """Where a symlink points; None for anything else, or nothing."""
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT}:
            return None
        raise
