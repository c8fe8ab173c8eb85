"""Answers to the kernel's requests (pure).

An answer is a header of 16 bytes and the body that the request's opcode has.

Source: include/uapi/linux/fuse.h, `fuse_out_header` and `fuse_*_out`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from lamina.wire.fuse import opcodes

HEADER = struct.Struct("<IiQ")
"""Length, negative errno, unique."""
HEADER_BYTES = HEADER.size

_ATTR = "QQQqqqIIIIIIIIII"
_ATTR_OUT = struct.Struct("<QII" + _ATTR)
_ENTRY_OUT = struct.Struct("<QQQQII" + _ATTR)
_OPEN_OUT = struct.Struct("<QIi")
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_STATFS_OUT = struct.Struct("<QQQQQIIII24x")
_DIRENT = struct.Struct("<QQII")
_TWO_U32 = struct.Struct("<II")
_U64 = struct.Struct("<Q")

ENTRY_BYTES = _ENTRY_OUT.size
NO_ENTRY = bytes(ENTRY_BYTES)
"""In READDIRPLUS: this entry counts as no lookup (`.` and `..`)."""


class Stat(Protocol):
    """What `os.stat` gives."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_nlink(self) -> int: ...
    @property
    def st_uid(self) -> int: ...
    @property
    def st_gid(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_blocks(self) -> int: ...
    @property
    def st_blksize(self) -> int: ...
    @property
    def st_rdev(self) -> int: ...
    @property
    def st_atime_ns(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class InitOut:
    """What the server takes of the kernel's offer. `flags` has both halves."""

    minor: int
    max_readahead: int
    flags: int
    max_background: int
    congestion_threshold: int
    max_write: int
    max_pages: int
    max_stack_depth: int


def header(body_bytes: int, unique: int) -> bytes:
    """The header of an answer that has a body of this length."""
    return HEADER.pack(HEADER_BYTES + body_bytes, 0, unique)


def failure(errno: int, unique: int) -> bytes:
    """A whole answer: it did not work."""
    return HEADER.pack(HEADER_BYTES, -errno, unique)


def init(answer: InitOut) -> bytes:
    return _INIT_OUT.pack(
        opcodes.MAJOR,
        answer.minor,
        answer.max_readahead,
        answer.flags & 0xFFFFFFFF,
        answer.max_background,
        answer.congestion_threshold,
        answer.max_write,
        1,
        answer.max_pages,
        0,
        answer.flags >> 32,
        answer.max_stack_depth,
    )


def attr(stat: Stat, ino: int, nlink: int, valid: int) -> bytes:
    """Attributes that the kernel may keep for `valid` seconds."""
    atime, atime_ns = divmod(stat.st_atime_ns, 1_000_000_000)
    mtime, mtime_ns = divmod(stat.st_mtime_ns, 1_000_000_000)
    ctime, ctime_ns = divmod(stat.st_ctime_ns, 1_000_000_000)
    return _ATTR_OUT.pack(
        valid, 0, 0, ino, stat.st_size, stat.st_blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, stat.st_mode,
        nlink, stat.st_uid, stat.st_gid, device(stat.st_rdev), stat.st_blksize, 0,
    )  # fmt: skip


def entry(nodeid: int, stat: Stat, ino: int, nlink: int, valid: int) -> bytes:
    """A node that a name leads to; name and attributes may be kept for `valid` seconds."""
    atime, atime_ns = divmod(stat.st_atime_ns, 1_000_000_000)
    mtime, mtime_ns = divmod(stat.st_mtime_ns, 1_000_000_000)
    ctime, ctime_ns = divmod(stat.st_ctime_ns, 1_000_000_000)
    return _ENTRY_OUT.pack(
        nodeid, 0, valid, valid, 0, 0, ino, stat.st_size, stat.st_blocks, atime, mtime, ctime, atime_ns, mtime_ns,
        ctime_ns, stat.st_mode, nlink, stat.st_uid, stat.st_gid, device(stat.st_rdev), stat.st_blksize, 0,
    )  # fmt: skip


def absent(valid: int) -> bytes:
    """An entry that says: no such name, and so it stays for `valid` seconds unless the kernel itself makes it."""
    return struct.pack("<QQQQII", 0, 0, valid, 0, 0, 0) + bytes(ENTRY_BYTES - 40)


def opened(fh: int, flags: int, backing_id: int = 0) -> bytes:
    return _OPEN_OUT.pack(fh, flags, backing_id)


def written(size: int) -> bytes:
    """WRITE and COPY_FILE_RANGE; also GETXATTR and LISTXATTR asked for a length."""
    return _TWO_U32.pack(size, 0)


def position(offset: int) -> bytes:
    """LSEEK."""
    return _U64.pack(offset)


def statfs(blocks: int, free: int, available: int, files: int, files_free: int, *, block: int, fragment: int) -> bytes:
    return _STATFS_OUT.pack(blocks, free, available, files, files_free, block, 255, fragment, 0)


def dirent(ino: int, offset: int, kind: int, name: bytes) -> bytes:
    """One entry of READDIR; `offset` is where the next one begins, `kind` a DT_ number."""
    length = 24 + len(name)
    return _DIRENT.pack(ino, offset, len(name), kind) + name + bytes(-length % 8)


def invalidate_attributes(nodeid: int) -> bytes:
    """A whole message of the server's own: forget the attributes of a node, keep its data."""
    return HEADER.pack(HEADER_BYTES + 24, opcodes.NOTIFY_INVAL_INODE, 0) + struct.pack("<Qqq", nodeid, -1, 0)


def device(number: int) -> int:
    """A device number as the kernel encodes it in 32 bits: minor in bits 0-7 and 20-31, major in 8-19.

    Source: include/linux/kdev_t.h, new_encode_dev. `os.stat` gives glibc's 64 bits.
    """
    if not number:
        return 0
    major = (number >> 8 & 0xFFF) | (number >> 32 & ~0xFFF)
    minor = (number & 0xFF) | (number >> 12 & ~0xFF)
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 & 0xFFFFFFFF


def device_of(encoded: int) -> int:
    """The other way: MKNOD's number as `os.mknod` wants it."""
    major = encoded >> 8 & 0xFFF
    minor = (encoded & 0xFF) | (encoded >> 12 & 0xFFF00)
    return (major & 0xFFF) << 8 | (minor & 0xFF) | (minor & ~0xFF) << 12
