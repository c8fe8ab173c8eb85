"""The bytes that go to /dev/mapper/control and come back: encoding and decoding only, no calls.

Every call carries one buffer: `struct dm_ioctl` (312 bytes), then what the command needs. Source: linux/dm-ioctl.h.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

HEADER_BYTES = 312
NAME_BYTES = 128
SECTOR = 512

_HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
_SPEC = struct.Struct("=Q Q i I 16s")
_NAME_LIST = struct.Struct("=Q I")
_VERSION = (4, 0, 0)  # the oldest interface we need; the kernel answers with its own


class Command(IntEnum):
    """Numbers of the ioctls; `request` makes the whole ioctl number of one."""

    VERSION = 0
    LIST_DEVICES = 2
    DEV_CREATE = 3
    DEV_REMOVE = 4
    DEV_SUSPEND = 6
    DEV_STATUS = 7
    TABLE_LOAD = 9
    TABLE_CLEAR = 10
    TABLE_STATUS = 12
    LIST_VERSIONS = 13
    TARGET_MSG = 14
    GET_TARGET_VERSION = 17


class Flag(IntFlag):
    """Bits of `dm_ioctl.flags`, with the header's names."""

    READONLY = 1 << 0
    SUSPEND = 1 << 1
    STATUS_TABLE = 1 << 4
    ACTIVE_PRESENT = 1 << 5
    INACTIVE_PRESENT = 1 << 6
    BUFFER_FULL = 1 << 8
    NOFLUSH = 1 << 11
    UEVENT_GENERATED = 1 << 13
    DEFERRED_REMOVE = 1 << 17


class UdevFlag(IntFlag):
    """What udev's rules must leave alone; the upper half of `event_nr`, as libdevmapper sets it.

    Source: libdevmapper.h, DM_UDEV_*.
    """

    NO_SUBSYSTEM_RULES = 0x0002
    NO_DISK_RULES = 0x0004
    NO_OTHER_RULES = 0x0008


@dataclass(frozen=True, slots=True)
class Target:
    """One line of a device's table, or of its status. Lengths are sectors of 512 bytes."""

    start: int
    length: int
    kind: str
    params: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`struct dm_ioctl` as the kernel filled it in. `device` is the kernel's number of it, see `device_of`."""

    version: tuple[int, int, int]
    data_size: int
    data_start: int
    target_count: int
    open_count: int
    flags: Flag
    device: int
    name: str


def request(command: Command) -> int:
    """The ioctl number: _IOWR(0xfd, command, struct dm_ioctl)."""
    return 3 << 30 | HEADER_BYTES << 16 | 0xFD << 8 | command


def encode(
    name: str = "", *, flags: int = 0, data: bytes = b"", targets: int = 0, udev: int = 0, room: int = 0
) -> bytearray:
    """The buffer of one call: the header, `data` after it, and zeros up to `room` bytes of data.

    Raises:
        OSError: ENAMETOOLONG: device names have at most 127 bytes.
    """
    raw = name.encode()
    if len(raw) >= NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, f"a device-mapper name has at most {NAME_BYTES - 1} bytes", name)
    size = HEADER_BYTES + max(len(data), room)
    header = _HEADER.pack(*_VERSION, size, HEADER_BYTES, targets, 0, flags, udev << 16, 0, 0, raw, b"")
    return bytearray(header + data).ljust(size, b"\0")


def encode_target(target: Target) -> bytes:
    """`struct dm_target_spec` with its parameters, padded to 8 bytes."""
    params = target.params.encode() + b"\0"
    params += bytes(-len(params) % 8)
    kind = target.kind.encode()
    return _SPEC.pack(target.start, target.length, 0, _SPEC.size + len(params), kind) + params


def encode_message(text: str, sector: int = 0) -> bytes:
    """`struct dm_target_msg`."""
    return struct.pack("=Q", sector) + text.encode() + b"\0"


def decode(buffer: bytes | bytearray) -> Answer:
    """The header of an answer."""
    fields = _HEADER.unpack_from(buffer)
    return Answer(
        version=(fields[0], fields[1], fields[2]),
        data_size=fields[3],
        data_start=fields[4],
        target_count=fields[5],
        open_count=fields[6],
        flags=Flag(fields[7]),
        device=fields[10],
        name=_text(fields[11]),
    )


def decode_targets(buffer: bytes | bytearray) -> list[Target]:
    """The targets of a TABLE_STATUS answer; `next` counts from the first of them."""
    answer = decode(buffer)
    found: list[Target] = []
    at = answer.data_start
    for _ in range(answer.target_count):
        start, length, _status, next_at, kind = _SPEC.unpack_from(buffer, at)
        params = bytes(buffer[at + _SPEC.size : answer.data_start + next_at])
        found.append(Target(start, length, _text(kind), _text(params)))
        at = answer.data_start + next_at
    return found


def decode_names(buffer: bytes | bytearray) -> dict[str, int]:
    """Names and device numbers of a LIST_DEVICES answer; `next` counts from the entry it stands in."""
    answer = decode(buffer)
    found: dict[str, int] = {}
    at = answer.data_start
    while at + _NAME_LIST.size <= len(buffer):
        device, step = _NAME_LIST.unpack_from(buffer, at)
        if device == 0:  # no device at all
            break
        found[_text(bytes(buffer[at + _NAME_LIST.size :]))] = device
        if step == 0:
            break
        at += step
    return found


def decode_versions(buffer: bytes | bytearray) -> dict[str, tuple[int, int, int]]:
    """Names and versions of the kernel's targets, from a LIST_VERSIONS answer."""
    answer = decode(buffer)
    found: dict[str, tuple[int, int, int]] = {}
    at = answer.data_start
    while at + 16 <= len(buffer):
        step, major, minor, patch = struct.unpack_from("=4I", buffer, at)
        found[_text(bytes(buffer[at + 16 :]))] = (major, minor, patch)
        if step == 0:
            break
        at += step
    return found


def device_of(number: int) -> tuple[int, int]:
    """Major and minor of a device number in the kernel's 64-bit form. Source: linux/kdev_t.h, huge_decode_dev."""
    return (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")
