"""Requests of the kernel, taken apart (pure).

A request is a header of 40 bytes, the fixed part that its opcode has, and names or data. Every function takes the
buffer that the request was read into and gives a tuple; `BODY` is where the fixed part begins.

Source: include/uapi/linux/fuse.h, `fuse_in_header` and `fuse_*_in`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

HEADER = struct.Struct("<IIQQIIIHH")
"""Length, opcode, unique, node id, uid, gid, pid, length of extensions in units of 8 bytes, padding."""

BODY = HEADER.size
WRITE_DATA = BODY + 40
"""Where the bytes to be written begin."""

_INIT = struct.Struct("<IIII")
_U32 = struct.Struct("<I")
_TWO_U32 = struct.Struct("<II")
_FOUR_U32 = struct.Struct("<IIII")
_U64 = struct.Struct("<Q")
_FORGET_ONE = struct.Struct("<QQ")
_GETATTR = struct.Struct("<IIQ")
_SETATTR = struct.Struct("<IIQQQQQQIIIIIIII")
_READ = struct.Struct("<QQI")
_WRITE = struct.Struct("<QQII")
_FSYNC = struct.Struct("<QI")
_RENAME2 = struct.Struct("<QII")
_FALLOCATE = struct.Struct("<QQQI")
_LSEEK = struct.Struct("<QQI")
_COPY = struct.Struct("<QQQQQQQ")


class RequestError(ValueError):
    """Bytes that are no request: too short, or a name without its end."""


class InitIn(NamedTuple):
    """What the kernel speaks and offers. `flags` has both halves."""

    major: int
    minor: int
    max_readahead: int
    flags: int


class SetAttrIn(NamedTuple):
    """New attributes; `valid` (`opcodes.SetAttr`) says which count. Times are nanoseconds."""

    valid: int
    fh: int
    size: int
    atime_ns: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int


class CreateIn(NamedTuple):
    """CREATE and TMPFILE."""

    flags: int
    mode: int
    umask: int
    open_flags: int
    name: bytes


class CopyIn(NamedTuple):
    """COPY_FILE_RANGE."""

    fh_in: int
    offset_in: int
    node_out: int
    fh_out: int
    offset_out: int
    length: int
    flags: int


def init(data: Buffer, length: int) -> InitIn:
    """The first request of a mount. Kernels before 7.36 send no second half of the flags."""
    major, minor, readahead, flags = _INIT.unpack_from(data, BODY)
    high = _U32.unpack_from(data, BODY + 16)[0] if length >= BODY + 20 else 0
    return InitIn(major, minor, readahead, flags | high << 32)


def name(data: Buffer, length: int, offset: int = BODY) -> bytes:
    """The name that fills the rest of a request from `offset` on: LOOKUP, UNLINK, RMDIR, REMOVEXATTR.

    Extensions that may follow its zero byte are left alone.
    """
    end = _end_of_name(data, length, offset)
    return bytes(data[offset:end])


def names(data: Buffer, length: int, offset: int = BODY) -> tuple[bytes, bytes]:
    """Two names: RENAME, RENAME2 (old, new), SYMLINK (name, target)."""
    first = _end_of_name(data, length, offset)
    second = _end_of_name(data, length, first + 1)
    return bytes(data[offset:first]), bytes(data[first + 1 : second])


def forget(data: Buffer) -> int:
    """How many lookups the kernel gives back."""
    return int(_U64.unpack_from(data, BODY)[0])


def batch_forget(data: Buffer, length: int) -> list[tuple[int, int]]:
    """Node ids and how many lookups of each the kernel gives back."""
    (count,) = _U32.unpack_from(data, BODY)
    at = BODY + 8
    if at + count * 16 > length:
        raise RequestError(f"{count} forgets do not fit into {length} bytes")
    return list(_FORGET_ONE.iter_unpack(data[at : at + count * 16]))


def getattr_(data: Buffer) -> tuple[int, int]:
    """Flags, file handle."""
    flags, _, fh = _GETATTR.unpack_from(data, BODY)
    return flags, fh


def setattr_(data: Buffer) -> SetAttrIn:
    valid, _, fh, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = _SETATTR.unpack_from(
        data, BODY
    )
    return SetAttrIn(valid, fh, size, atime * 10**9 + atime_ns, mtime * 10**9 + mtime_ns, mode, uid, gid)


def mknod(data: Buffer, length: int) -> tuple[int, int, int, bytes]:
    """Mode, device, umask, name."""
    mode, rdev, umask, _ = _FOUR_U32.unpack_from(data, BODY)
    return mode, rdev, umask, name(data, length, BODY + 16)


def mkdir(data: Buffer, length: int) -> tuple[int, int, bytes]:
    """Mode, umask, name."""
    mode, umask = _TWO_U32.unpack_from(data, BODY)
    return mode, umask, name(data, length, BODY + 8)


def create(data: Buffer, length: int) -> CreateIn:
    flags, mode, umask, open_flags = _FOUR_U32.unpack_from(data, BODY)
    return CreateIn(flags, mode, umask, open_flags, name(data, length, BODY + 16))


def rename(data: Buffer, length: int) -> tuple[int, int, bytes, bytes]:
    """New parent, flags (none), old name, new name."""
    (parent,) = _U64.unpack_from(data, BODY)
    return (parent, 0, *names(data, length, BODY + 8))


def rename2(data: Buffer, length: int) -> tuple[int, int, bytes, bytes]:
    """New parent, flags of renameat2, old name, new name."""
    parent, flags, _ = _RENAME2.unpack_from(data, BODY)
    return (parent, flags, *names(data, length, BODY + 16))


def link(data: Buffer, length: int) -> tuple[int, bytes]:
    """Node id of the file, its further name."""
    (node,) = _U64.unpack_from(data, BODY)
    return node, name(data, length, BODY + 8)


def open_(data: Buffer) -> tuple[int, int]:
    """Flags of open(2), flags of the protocol."""
    flags, open_flags = _TWO_U32.unpack_from(data, BODY)
    return flags, open_flags


def read(data: Buffer) -> tuple[int, int, int]:
    """File handle, offset, size: READ, READDIR, READDIRPLUS."""
    fh, offset, size = _READ.unpack_from(data, BODY)
    return fh, offset, size


def write(data: Buffer) -> tuple[int, int, int, int]:
    """File handle, offset, size, flags; the bytes begin at `WRITE_DATA`."""
    fh, offset, size, flags = _WRITE.unpack_from(data, BODY)
    return fh, offset, size, flags


def handle(data: Buffer) -> int:
    """The file handle that begins RELEASE, RELEASEDIR, FLUSH."""
    return int(_U64.unpack_from(data, BODY)[0])


def fsync(data: Buffer) -> tuple[int, int]:
    """File handle, flags: FSYNC, FSYNCDIR."""
    fh, flags = _FSYNC.unpack_from(data, BODY)
    return fh, flags


def setxattr(data: Buffer, length: int, *, extended: bool) -> tuple[int, int, bytes, bytes]:
    """Flags as of the system call, the protocol's own flags, name, value."""
    size, flags = _TWO_U32.unpack_from(data, BODY)
    extra = _U32.unpack_from(data, BODY + 8)[0] if extended else 0
    at = BODY + (16 if extended else 8)
    end = _end_of_name(data, length, at)
    if end + 1 + size > length:
        raise RequestError(f"a value of {size} bytes does not fit into {length} bytes")
    return flags, extra, bytes(data[at:end]), bytes(data[end + 1 : end + 1 + size])


def getxattr(data: Buffer, length: int) -> tuple[int, bytes]:
    """Room at the asking side (0: tell the length), name."""
    (size,) = _U32.unpack_from(data, BODY)
    return size, name(data, length, BODY + 8)


def listxattr(data: Buffer) -> int:
    """Room at the asking side (0: tell the length)."""
    return int(_U32.unpack_from(data, BODY)[0])


def fallocate(data: Buffer) -> tuple[int, int, int, int]:
    """File handle, offset, length, mode."""
    fh, offset, length, mode = _FALLOCATE.unpack_from(data, BODY)
    return fh, offset, length, mode


def lseek(data: Buffer) -> tuple[int, int, int]:
    """File handle, offset, whence."""
    fh, offset, whence = _LSEEK.unpack_from(data, BODY)
    return fh, offset, whence


def copy_file_range(data: Buffer) -> CopyIn:
    return CopyIn._make(_COPY.unpack_from(data, BODY))


def _end_of_name(data: Buffer, length: int, offset: int) -> int:
    """Where the zero byte is."""
    if isinstance(data, memoryview):
        found = bytes(data[offset:length]).find(b"\0")
        end = found + offset if found >= 0 else -1
    else:
        end = data.find(b"\0", offset, length)
    if end < 0:
        raise RequestError(f"a name of a request of {length} bytes has no end")
    return end
