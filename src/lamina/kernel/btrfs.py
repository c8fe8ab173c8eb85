"""btrfs by its ioctls: subvolumes, snapshots, what changed in them, quotas (blocking).

A `fd` is any open directory of the file system; where it must be the root of a subvolume the text says so. Failures are
`OSError` with the errno of the kernel. Small arguments are passed as `bytes`: fcntl lets go of the interpreter lock for
those, and not for small buffers that it may write into. Source: linux/btrfs.h, linux/btrfs_tree.h, btrfs-ioctl(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lamina.kernel import libc

MAGIC = 0x9123683E
ROOT_INODE = 256
"""BTRFS_FIRST_FREE_OBJECTID: the root directory of every subvolume."""

_READ_ONLY = 1 << 1
_BY_ID = 1 << 4
_NAME_MAX = 255
_ROOT_TREE, _QUOTA_TREE = 1, 8
_INODE_ITEM, _INODE_REF, _INODE_EXTREF = 1, 12, 13
_ROOT_ITEM, _ROOT_REF, _QGROUP_INFO, _QGROUP_LIMIT = 132, 156, 242, 244
_ON_DISK_READ_ONLY = 1 << 0
"""BTRFS_ROOT_SUBVOL_RDONLY: the flag as the root item keeps it, which is not the flag of the ioctls."""
_MAX_RFER = 1 << 0
_ALL = (1 << 64) - 1
_LAST_NUMBER = (1 << 48) - 1
_MOST_ITEMS = (1 << 32) - 1
_BUFFER_BYTES = 256 << 10
_ITEM_BYTES = 64 << 10
"""No item is larger than the leaf it is in."""

_VOLUME = struct.Struct("=q4088s")
_VOLUME_V2 = struct.Struct("=qQQ32s4040s")
_BY_ID_V2 = struct.Struct("=qQQ32sQ4032x")
_INFO = struct.Struct("=Q256sQQQQ16s16s16sQQQQ64s64x")
_LOOKUP = struct.Struct("=QQ4080s")
_SEARCH = struct.Struct("=7Q3I4x32xQ")
_HEADER = struct.Struct("=QQQII")
_SHORT_HEADER = struct.Struct("=8xQ8xII").unpack_from
_INODE_TRANSID = struct.Struct("=32x8xQ").unpack_from
_REF = struct.Struct("<QQH")
_LIMIT = struct.Struct("=QQQQQQ")
_WORDS = struct.Struct("=QQ")
_FS_INFO_BYTES = 1024
_DEVICE_COUNTS = struct.Struct("=6Q984x")
_RESCAN = struct.Struct("=QQ48x")


def _code(direction: int, number: int, size: int) -> int:
    """An ioctl number as asm-generic/ioctl.h builds it: 1 writes, 2 reads, 3 both."""
    return direction << 30 | size << 16 | 0x94 << 8 | number


_SUBVOL_CREATE = _code(1, 14, _VOLUME.size)
_SNAP_DESTROY = _code(1, 15, _VOLUME.size)
_TREE_SEARCH_V2 = _code(3, 17, _SEARCH.size)
_FS_INFO = _code(2, 31, _FS_INFO_BYTES)
_GET_DEV_STATS = _code(3, 52, _DEVICE_COUNTS.size)
_INO_LOOKUP = _code(3, 18, _LOOKUP.size)
_SNAP_CREATE_V2 = _code(1, 23, _VOLUME_V2.size)
_SUBVOL_GETFLAGS = _code(2, 25, 8)
_SUBVOL_SETFLAGS = _code(1, 26, 8)
_QUOTA_CTL = _code(3, 40, _WORDS.size)
_QGROUP_CREATE = _code(1, 42, _WORDS.size)
_QGROUP_LIMIT_SET = _code(2, 43, _LIMIT.size)
_QUOTA_RESCAN_STATUS = _code(2, 45, _RESCAN.size)
_GET_SUBVOL_INFO = _code(2, 60, _INFO.size)
_SNAP_DESTROY_V2 = _code(1, 63, _VOLUME_V2.size)


@dataclass(frozen=True, slots=True)
class Subvolume:
    """What the file system itself knows of one subvolume.

    `parent_uuid` is that of the subvolume it is a snapshot of, 16 zero bytes for none. `generation` is the transaction
    of the last change in it, `made_at` the one it was made in.
    """

    number: int
    uuid: bytes
    parent_uuid: bytes
    generation: int
    made_at: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class Nested:
    """A subvolume inside another one: `name` in the directory with the inode `directory` of the subvolume `outer`."""

    number: int
    outer: int
    directory: int
    name: bytes


def is_on_btrfs(path: libc.StrOrBytesPath) -> bool:
    return libc.file_system_type(path) == MAGIC


def is_root_of_subvolume(fd: int) -> bool:
    """Is the open directory the root of a subvolume?"""
    return os.fstat(fd).st_ino == ROOT_INODE and is_on_btrfs(f"/proc/self/fd/{fd}")


def create_subvolume(parent_fd: int, name: str) -> None:
    """Make an empty subvolume; its mode is 0777 without the umask. Raises FileExistsError."""
    fcntl.ioctl(parent_fd, _SUBVOL_CREATE, bytearray(_VOLUME.pack(0, _name(name))))


def create_snapshot(source_fd: int, parent_fd: int, name: str, *, read_only: bool = False) -> None:
    """Make a snapshot of the subvolume whose root is `source_fd`.

    Its data is written out first and the file system's transaction is committed, so the snapshot is on disk when this
    returns. Raises FileExistsError.
    """
    flags = _READ_ONLY if read_only else 0
    wanted = bytearray(_VOLUME_V2.pack(source_fd, 0, flags, b"", _name(name)))
    fcntl.ioctl(parent_fd, _SNAP_CREATE_V2, wanted)


def destroy_subvolume(parent_fd: int, name: str) -> None:
    """Remove a subvolume by its name; its room is given back later, by a kernel thread.

    Raises OSError: ENOTEMPTY when there are subvolumes in it, ENOENT, EROFS when it lies in a read-only one.
    """
    fcntl.ioctl(parent_fd, _SNAP_DESTROY, bytearray(_VOLUME.pack(0, _name(name))))


def destroy_subvolume_by_number(fd: int, number: int) -> None:
    """The same by its number, wherever it lies below the mount of `fd`. Needs Linux 5.7."""
    fcntl.ioctl(fd, _SNAP_DESTROY_V2, bytearray(_BY_ID_V2.pack(0, 0, _BY_ID, b"", number)))


def subvolume_number(fd: int) -> int:
    """The number of the subvolume that the open file or directory is in."""
    found = bytearray(_LOOKUP.pack(0, ROOT_INODE, b""))
    fcntl.ioctl(fd, _INO_LOOKUP, found)
    return int(_LOOKUP.unpack(found)[0])


def subvolume(fd: int) -> Subvolume:
    """What is known of the subvolume that `fd` is in. Needs Linux 4.18."""
    (number, _, _, _, generation, flags, uuid, parent_uuid, _, _, made_at, _, _, _) = _INFO.unpack(
        fcntl.ioctl(fd, _GET_SUBVOL_INFO, bytes(_INFO.size))
    )
    return Subvolume(number, uuid, parent_uuid, generation, made_at, bool(flags & _ON_DISK_READ_ONLY))


def set_read_only(fd: int, *, read_only: bool) -> None:
    """Refuse writes into the subvolume whose root is `fd`, or allow them again; committed when this returns."""
    (flags,) = struct.unpack("=Q", fcntl.ioctl(fd, _SUBVOL_GETFLAGS, bytes(8)))
    wanted = flags | _READ_ONLY if read_only else flags & ~_READ_ONLY
    if wanted != flags:
        fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", wanted))


def nested_subvolumes(fd: int, number: int) -> list[Nested]:
    """The subvolumes in the one called `number`, at any depth, outer ones first."""
    found: list[Nested] = []
    looked_at = 0
    outer = number
    while True:
        for _, _, inner, item in _search(fd, _ROOT_TREE, (outer, _ROOT_REF), (outer, _ROOT_REF)):
            directory, _, length = _REF.unpack_from(item)
            found.append(Nested(inner, outer, directory, bytes(item[_REF.size : _REF.size + length])))
        if looked_at == len(found):
            return found
        outer = found[looked_at].number
        looked_at += 1


def path_of_directory(fd: int, number: int, inode: int) -> bytes:
    """Where a directory lies in the subvolume called `number`; b"" for its root."""
    found = bytearray(_LOOKUP.pack(number, inode, b""))
    fcntl.ioctl(fd, _INO_LOOKUP, found)
    return bytes(_LOOKUP.unpack(found)[2]).split(b"\0", 1)[0].rstrip(b"/")


def inodes_changed_since(fd: int, generation: int, most: int) -> dict[int, bytes] | None:
    """The inodes of the subvolume of `fd` that a transaction after `generation` changed; None: there are over `most`.

    With each comes its state as `inode_states` tells it. Only leaves of the tree that were written since are read. What
    is in memory alone is not seen: ask a snapshot.
    """
    found: dict[int, bytes] = {}
    buffer = bytearray(_SEARCH.size + _BUFFER_BYTES)
    view = memoryview(buffer)
    at, last = (ROOT_INODE, 0, 0), (_ALL - 255, _INODE_ITEM, _ALL)
    while len(found) <= most:
        count = _fetch(fd, buffer, 0, at, last, newer_than=generation)
        if not count:
            return found
        place = end = _SEARCH.size
        for _ in range(count):  # hundreds of thousands: nothing is done here that need not be
            place = end
            objectid, kind, length = _SHORT_HEADER(buffer, place)
            end += _HEADER.size + length
            if kind == _INODE_ITEM and _INODE_TRANSID(buffer, place)[0] > generation:
                found[objectid] = _state(view[place + _HEADER.size : end])
        _, objectid, offset, kind, _ = _HEADER.unpack_from(buffer, place)
        at = _after(objectid, kind, offset)
    return None


def inode_states(fd: int, inodes: Iterable[int]) -> dict[int, bytes]:
    """What the subvolume of `fd` keeps of these inodes, without the time of the last access and what only that changes.

    An inode whose state is the same in a subvolume and its snapshot is the same file: its change counter is in it.
    """
    found: dict[int, bytes] = {}
    buffer = bytearray(_SEARCH.size + _ITEM_BYTES)
    for inode in inodes:
        for _, _, _, item in _search(fd, 0, (inode, _INODE_ITEM), (inode, _INODE_ITEM), buffer=buffer):
            found[inode] = _state(item)
    return found


def _state(item: memoryview) -> bytes:
    """An inode item without the transaction and the access time. Source: struct btrfs_inode_item."""
    return bytes(item[:8]) + bytes(item[16:112]) + bytes(item[124:])


def directories_above(fd: int, inodes: Iterable[int]) -> set[int]:
    """The directories that hold these inodes of the subvolume of `fd` under any name, at any depth."""
    found: set[int] = set()
    pending = list(inodes)
    buffer = bytearray(_SEARCH.size + _ITEM_BYTES)
    while pending:
        inode = pending.pop()
        for _, kind, at, item in _search(fd, 0, (inode, _INODE_REF), (inode, _INODE_EXTREF), buffer=buffer):
            directory = at if kind == _INODE_REF else _WORDS.unpack_from(item)[0]
            if directory not in found:
                found.add(directory)
                pending.append(directory)
    return found


def write_errors(fd: int) -> int:
    """How often the devices of the file system failed to write or to flush since they were made part of it."""
    highest, _ = _WORDS.unpack_from(fcntl.ioctl(fd, _FS_INFO, bytes(_FS_INFO_BYTES)))
    total = 0
    for device in range(1, highest + 1):
        counts = bytearray(_DEVICE_COUNTS.size)
        _DEVICE_COUNTS.pack_into(counts, 0, device, 3, 0, 0, 0, 0)
        try:
            fcntl.ioctl(fd, _GET_DEV_STATS, counts)
        except OSError as error:
            if error.errno != errno.ENODEV:  # it was taken out
                raise
            continue
        _, _, _, writes, _, flushes = _DEVICE_COUNTS.unpack(counts)
        total += writes + flushes
    return total


def enable_quotas(fd: int) -> None:
    """Count what every subvolume of the file system takes. Again is fine; counting what is there goes on behind."""
    fcntl.ioctl(fd, _QUOTA_CTL, _WORDS.pack(1, 0))


def quotas_enabled(fd: int) -> bool:
    """Are quotas counted on this file system?"""
    try:
        for _ in _search(fd, _QUOTA_TREE, (0, 0), (_ALL, 255)):
            return True
    except FileNotFoundError:
        return False
    return False


def is_counting(fd: int) -> bool:
    """Is the first count after `enable_quotas` still going on?"""
    flags, _ = _RESCAN.unpack(fcntl.ioctl(fd, _QUOTA_RESCAN_STATUS, bytes(_RESCAN.size)))
    return bool(flags)


def limit_subvolume(fd: int, limit_bytes: int) -> None:
    """Let the subvolume of `fd` refer to at most so many bytes, shared ones included; 0: no limit.

    Raises OSError: ENOTCONN when quotas are off.
    """
    flags = _MAX_RFER
    fcntl.ioctl(fd, _QGROUP_LIMIT_SET, _LIMIT.pack(0, flags, limit_bytes or _ALL, 0, 0, 0))


def limit_of_subvolume(fd: int, number: int) -> int:
    """The limit of one subvolume in bytes; 0 for none, and where quotas are off."""
    wanted = (0, _QGROUP_LIMIT)
    try:
        for _, _, _, item in _search(fd, _QUOTA_TREE, wanted, wanted, offsets=(number, number)):
            flags, limit = _WORDS.unpack_from(item)
            return int(limit) if flags & _MAX_RFER and limit != _ALL else 0
    except FileNotFoundError:
        return 0
    return 0


def stale_groups(fd: int) -> list[int]:
    """The numbers of quota groups whose subvolume is gone; numbers are never used again."""
    wanted = (0, _QGROUP_INFO)
    try:
        groups = [at for _, _, at, _ in _search(fd, _QUOTA_TREE, wanted, wanted, offsets=(ROOT_INODE, _LAST_NUMBER))]
    except FileNotFoundError:
        return []
    return [number for number in groups if not _exists(fd, number)]


def _exists(fd: int, number: int) -> bool:
    wanted = (number, _ROOT_ITEM)
    return any(True for _ in _search(fd, _ROOT_TREE, wanted, wanted))


def destroy_group(fd: int, number: int) -> bool:
    """Remove the quota group of a subvolume; True when it is gone. The kernel keeps it while the subvolume is there."""
    try:
        fcntl.ioctl(fd, _QGROUP_CREATE, _WORDS.pack(0, number))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTCONN}:
            return True
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _name(name: str) -> bytes:
    raw = os.fsencode(name)
    if not raw or len(raw) > _NAME_MAX or b"/" in raw:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    return raw


def _search(
    fd: int,
    tree: int,
    first: tuple[int, int],
    last: tuple[int, int],
    *,
    offsets: tuple[int, int] = (0, _ALL),
    buffer: bytearray | None = None,
) -> Iterator[tuple[int, int, int, memoryview]]:
    """(object, type, offset, content) of the items from (object, type) `first` to `last`; `tree` 0 is that of `fd`.

    A content is valid until the next one is asked for.
    """
    buffer = buffer or bytearray(_SEARCH.size + _BUFFER_BYTES)
    view = memoryview(buffer)
    key, end = (*first, offsets[0]), (*last, offsets[1])
    while count := _fetch(fd, buffer, tree, key, end):
        place = _SEARCH.size
        for _ in range(count):
            _, objectid, at, kind, length = _HEADER.unpack_from(buffer, place)
            place += _HEADER.size
            key = _after(objectid, kind, at)
            yield objectid, kind, at, view[place : place + length]
            place += length


def _fetch(
    fd: int,
    buffer: bytearray,
    tree: int,
    first: tuple[int, int, int],
    last: tuple[int, int, int],
    *,
    newer_than: int = -1,
) -> int:
    """Fill the buffer behind its search key with the next items, each after its header; how many they are.

    `newer_than` leaves out the leaves that no later transaction wrote.
    """
    if first > last:
        return 0
    key = (tree, first[0], last[0], first[2], last[2], newer_than + 1, _ALL, first[1], last[1], _MOST_ITEMS)
    _SEARCH.pack_into(buffer, 0, *key, len(buffer) - _SEARCH.size)
    fcntl.ioctl(fd, _TREE_SEARCH_V2, buffer)
    return int(_SEARCH.unpack_from(buffer)[9])


def _after(objectid: int, kind: int, offset: int) -> tuple[int, int, int]:
    """The key that follows; the three parts are one number of 136 bits."""
    if offset < _ALL:
        return objectid, kind, offset + 1
    if kind < 255:
        return objectid, kind + 1, 0
    return objectid + 1, 0, 0
