"""Files as block devices: loop devices by ioctl (blocking). Source: loop(4), linux/loop.h."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

_SET_FD, _CLR_FD, _SET_STATUS64, _SET_CAPACITY, _CONFIGURE = 0x4C00, 0x4C01, 0x4C04, 0x4C07, 0x4C0A
_GET_STATUS64 = 0x4C05
_CTL_GET_FREE = 0x4C82
_CONTROL = "/dev/loop-control"
_SYS = Path("/sys/block")
_MAJOR = 7
_INFO = struct.Struct("=5Q 4I 64s 64s 32s 2Q")
_CONFIG = struct.Struct(f"=2I {_INFO.size}s 64x")
_TRIES = 64


class LoopFlag(IntFlag):
    """LO_FLAGS_* of linux/loop.h."""

    READ_ONLY = 1
    AUTOCLEAR = 4
    DIRECT_IO = 16


@dataclass(frozen=True, slots=True)
class LoopInfo:
    """What a loop device shows. `device` and `inode` tell the file below it."""

    device: int
    inode: int
    offset: int
    size_limit: int
    number: int
    flags: LoopFlag
    file_name: str


def encode_info(file_name: str, flags: LoopFlag) -> bytes:
    """`struct loop_info64`: the whole file, with the beginning of its name for people who look."""
    name = os.fsencode(file_name)[:63]
    return _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)


def encode_config(fd: int, file_name: str, flags: LoopFlag) -> bytes:
    """`struct loop_config` for LOOP_CONFIGURE."""
    return _CONFIG.pack(fd, 0, encode_info(file_name, flags))


def decode_info(raw: bytes) -> LoopInfo:
    fields = _INFO.unpack(raw)
    name = fields[9].partition(b"\0")[0]
    return LoopInfo(fields[0], fields[1], fields[3], fields[4], fields[5], LoopFlag(fields[8]), os.fsdecode(name))


def attach(path: Path, *, read_only: bool = False, autoclear: bool = False) -> Path:
    """Make a block device of the file and give its path.

    With `autoclear` the device goes with its last user; use `attached`, which keeps it until there is one.

    Raises:
        OSError: no loop devices here, or the file cannot be opened.
    """
    fd, device = _attach(path, read_only=read_only, autoclear=autoclear)
    os.close(fd)
    return device


@contextmanager
def attached(path: Path, *, read_only: bool = False) -> Iterator[Path]:
    """A block device of the file that goes by itself when nobody uses it any more after the `with` block."""
    fd, device = _attach(path, read_only=read_only, autoclear=True)
    try:
        yield device
    finally:
        os.close(fd)


def detach(device: Path) -> None:
    """Take the file away; a device in use goes with its last user. One without file is fine."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    finally:
        os.close(fd)


def refresh_size(device: Path) -> None:
    """Tell the device that its file has grown."""
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _SET_CAPACITY)
    finally:
        os.close(fd)


def info(device: Path) -> LoopInfo | None:
    """What the device shows; None when it has no file."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = bytearray(_INFO.size)
        fcntl.ioctl(fd, _GET_STATUS64, raw)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    finally:
        os.close(fd)
    return decode_info(bytes(raw))


def find(path: Path) -> list[Path]:
    """The loop devices that show exactly this file: by inode, and device (or, on btrfs, name).

    A name alone would not do: the file may have been renamed, or replaced.
    """
    wanted = path.stat()
    name = os.path.realpath(path)
    found: list[Path] = []
    for entry in _SYS.glob("loop*/loop"):
        device = Path("/dev", entry.parent.name)
        with suppress(FileNotFoundError, OSError):
            shows = info(device)
            if shows is None or shows.inode != wanted.st_ino:
                continue
            if shows.device == _kernel_number(wanted.st_dev) or name == backing_file(_MAJOR, shows.number):
                found.append(device)
    return sorted(found)


def backing_file(major: int, minor: int) -> str | None:
    """The name of the file below a loop device as the kernel tells it now, with ` (deleted)` when it was.

    None for other devices, and for one without file.
    """
    if major != _MAJOR:
        return None
    try:
        return os.fsdecode(Path(f"/sys/dev/block/{major}:{minor}/loop/backing_file").read_bytes().rstrip(b"\n"))
    except FileNotFoundError:
        return None


def _attach(path: Path, *, read_only: bool, autoclear: bool) -> tuple[int, Path]:
    """A descriptor of the new device, which keeps it, and its path."""
    mode = os.O_RDONLY if read_only else os.O_RDWR
    flags = (LoopFlag.READ_ONLY if read_only else LoopFlag(0)) | (LoopFlag.AUTOCLEAR if autoclear else LoopFlag(0))
    backing = os.open(path, mode | os.O_CLOEXEC)
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_TRIES):
                number = fcntl.ioctl(control, _CTL_GET_FREE)
                device = _node(number)
                fd = os.open(device, mode | os.O_CLOEXEC)
                try:
                    _configure(fd, backing, os.fspath(path), flags)
                except OSError as error:
                    os.close(fd)
                    if error.errno != errno.EBUSY:  # somebody else was given the same free one
                        raise
                    continue
                return fd, device
        finally:
            os.close(control)
    finally:
        os.close(backing)
    raise OSError(errno.EBUSY, "no free loop device could be had", os.fspath(path))


def _configure(fd: int, backing: int, file_name: str, flags: LoopFlag) -> None:
    try:
        fcntl.ioctl(fd, _CONFIGURE, encode_config(backing, file_name, flags))
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTTY}:
            raise
    else:
        return
    fcntl.ioctl(fd, _SET_FD, backing)  # before Linux 5.8
    try:
        fcntl.ioctl(fd, _SET_STATUS64, encode_info(file_name, flags))
    except OSError:
        fcntl.ioctl(fd, _CLR_FD)
        raise


def _node(number: int) -> Path:
    node = Path(f"/dev/loop{number}")
    if not node.exists():  # a /dev that is no devtmpfs
        with suppress(FileExistsError):
            os.mknod(node, stat.S_IFBLK | 0o660, os.makedev(_MAJOR, number))
    return node


def _kernel_number(device: int) -> int:
    """st_dev as `lo_device` holds it: loop uses huge_encode_dev, which is what glibc's makedev gives here too."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
