"""One name of a changeset with its metadata (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

NO_XATTRS: tuple[tuple[bytes, bytes], ...] = ()
NO_SEGMENTS: tuple[tuple[int, int], ...] = ()


class EntryKind(Enum):
    """What an entry makes. Source: POSIX pax, "ustar Interchange Format", typeflag."""

    FILE = "file"
    HARD_LINK = "hard link"
    SYMLINK = "symlink"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"
    GLOBAL_HEADER = "global header"
    """A pax `g` header: kept in the framing, changes nothing in the tree."""


@dataclass(slots=True)
class Entry:
    """One name with its metadata, as the archive says it; not yet cleaned, not to be trusted.

    Names and links are **bytes**, as the kernel and tar have them: an encoding is never assumed, so names that are not
    UTF-8 come out as they went in. `size_bytes` is the length of the file; `stored_bytes` what lies in the archive
    (less for sparse files, 0 for everything that is no file). `mode` holds permission, set-id and sticky bits only.
    `segments` are the (offset, length) data runs of a sparse file. Times are nanoseconds since the epoch.

    Not frozen although it is a value: a layer has tens of thousands, and frozen ones take five times as long to make.
    """

    kind: EntryKind
    name: bytes
    link: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    stored_bytes: int = 0
    mtime_ns: int = 0
    atime_ns: int | None = None
    major: int = 0
    minor: int = 0
    user: bytes = b""
    group: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = NO_XATTRS
    segments: tuple[tuple[int, int], ...] = NO_SEGMENTS
    is_sparse: bool = False
