"""/dev/fuse: a descriptor to serve a file system with, its mount, and passthrough (blocking).

Source: fuse(4), Documentation/filesystems/fuse.rst, fuse-passthrough.rst.
"""

from __future__ import annotations

import fcntl
import os
import struct

from lamina.errors import Unsupported
from lamina.kernel import libc

DEVICE = "/dev/fuse"

_BACKING_OPEN = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
_BACKING_CLOSE = 0x4004E502  # _IOW(229, 2, uint32_t)
_BACKING_MAP = struct.Struct("<iIQ")


def open_device() -> int:
    """A descriptor that one mount will be served over.

    Raises:
        Unsupported: this kernel has no FUSE.
    """
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, OSError) as error:
        raise Unsupported(
            f"{DEVICE} cannot be opened: {error.strerror}", hint="load the kernel's FUSE: modprobe fuse"
        ) from error


def mount(device: int, target: str, *, subtype: str, source: str, flags: int = 0, more: str = "") -> None:
    """Mount the file system that is served over `device`; the kernel checks permissions, for all users.

    Raises:
        OSError: as mount(2).
    """
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    libc.mount(source, target, f"fuse.{subtype}", flags, data=f"{data},{more}" if more else data)


def open_backing(device: int, fd: int) -> int:
    """Let the kernel read and write the file of `fd` by itself; gives the id to answer an open with.

    Raises:
        OSError: ELOOP when the file lies on a stacked file system itself, EPERM without CAP_SYS_ADMIN.
    """
    # With a buffer that may change, ioctl gives the call's result, which is the id.
    return int(fcntl.ioctl(device, _BACKING_OPEN, bytearray(_BACKING_MAP.pack(fd, 0, 0)), True))  # noqa: FBT003


def close_backing(device: int, backing_id: int) -> None:
    """Give a backing id back; files that are open with it go on."""
    fcntl.ioctl(device, _BACKING_CLOSE, struct.pack("<I", backing_id))
