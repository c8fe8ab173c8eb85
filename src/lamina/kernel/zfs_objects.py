"""Which objects of a ZFS dataset changed, and where they are in its tree: what `zfs diff` asks /dev/zfs (blocking).

An object number is the inode number of a file. libzfs_core does not offer these two questions; their numbers and the
part of `zfs_cmd_t` that they use have been the same since OpenZFS 0.8.

Source: OpenZFS include/sys/zfs_ioctl.h, include/sys/fs/zfs.h, module/zfs/dmu_diff.c.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from lamina.kernel.zfs import DEVICE

_DIFF = 0x5A36
_OBJECT_TO_STATS = 0x5A38

# zfs_cmd_t has less than 14 KiB; the kernel reads and writes all of it, and a later one may have more
_COMMAND_BYTES = 1 << 15
_NAME = 0
_VALUE = 4144
_VALUE_BYTES = 8192
_COOKIE = 12616
_OBJECT = 12656

_RECORD = struct.Struct("=QQQ")  # dmu_diff_record_t
_IN_USE = 2

_ioctl = ctypes.CDLL(None, use_errno=True).ioctl
_Buffer = ctypes.c_char * _COMMAND_BYTES
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.POINTER(_Buffer))


@dataclass(slots=True)
class Objects:
    """Asks about objects; use it in `with`."""

    _fd: int = field(default_factory=lambda: os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def changed(self, snapshot: str, since: str) -> Iterator[range]:
        """The numbers of objects of `snapshot` that may differ from those in `since`, an earlier one of its line.

        ZFS keeps 32 objects in a block and tells of blocks, so most of them are the same.

        Raises:
            OSError: EXDEV where `since` is not earlier, ENOENT where one is not there.
        """
        # Not a pipe: nobody would read it while the kernel writes.
        told = os.memfd_create("zfs-diff", os.MFD_CLOEXEC)
        try:
            command = _command(snapshot)
            _put(command, _VALUE, os.fsencode(since) + b"\0")
            _put(command, _COOKIE, struct.pack("=Q", told))
            self._call(_DIFF, command, snapshot)
            records = os.pread(told, os.fstat(told).st_size, 0)
        finally:
            os.close(told)
        for kind, first, last in _RECORD.iter_unpack(records):
            if kind == _IN_USE:
                yield range(first, last + 1)

    def path(self, dataset: str, number: int) -> str:
        """Where an object is, from the root of the dataset on, beginning with `/`; of several names it has, one.

        Raises:
            OSError: ENOENT: it is no file, or has no name any more.
        """
        command = _command(dataset)
        _put(command, _OBJECT, struct.pack("=Q", number))
        self._call(_OBJECT_TO_STATS, command, dataset)
        return os.fsdecode(bytes(command[_VALUE : command.index(0, _VALUE, _VALUE + _VALUE_BYTES)]))

    def _call(self, number: int, command: bytearray, dataset: str) -> None:
        if _ioctl(self._fd, number, _Buffer.from_buffer(command)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), dataset)


def _command(dataset: str) -> bytearray:
    command = bytearray(_COMMAND_BYTES)
    _put(command, _NAME, os.fsencode(dataset) + b"\0")
    return command


def _put(command: bytearray, place: int, data: bytes) -> None:
    command[place : place + len(data)] = data
