"""Mounts that no path leads to: seen through a descriptor only, gone with it (blocking).

For a look into a file system, or a small change in it: no mount point to make, no other mount namespace that gets a
copy, and nothing to clean after kill -9. Source: fsopen(2), fsconfig(2), fsmount(2), Linux 5.2.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.errors import Unsupported
from lamina.kernel import libc
from lamina.kernel.superblock import Superblock

# fs/ext4/ext4.h: _IOW('f', 16, __u64); xfs_fs.h: _IOW('X', 110, struct xfs_growfs_data)
_EXT4_RESIZE = 0x40086610
_XFS_GROW = 0x4010586E


@contextmanager
def mounted_apart(fstype: str, device: Path, *, options: str = "", read_only: bool = False) -> Iterator[Path]:
    """The root of the device's file system for the length of a `with` block, as a path that only this process has.

    `options` are the file system's own, comma-separated. A device that is mounted elsewhere is the same file system
    then; it must be writable there exactly when it is here, or the kernel says EBUSY.
    """
    context = libc.fsopen(fstype)
    try:
        libc.fsconfig_string(context, "source", os.fspath(device))
        if read_only:
            libc.fsconfig_flag(context, "ro")
        for option in filter(None, options.split(",")):
            key, equals, value = option.partition("=")
            if equals:
                libc.fsconfig_string(context, key, value)
            else:
                libc.fsconfig_flag(context, key)
        libc.fsconfig_create(context, device)
        root = libc.fsmount(context)
    finally:
        os.close(context)
    try:
        yield Path(f"/proc/self/fd/{root}")
    finally:
        os.close(root)


def grow(root: Path, found: Superblock, size_bytes: int) -> None:
    """Let the mounted file system `found` use `size_bytes` of its device. One that does already is left alone.

    Raises:
        Unsupported: a file system this cannot grow.
        OSError: the kernel refused.
    """
    blocks = size_bytes // found.block_bytes
    if blocks <= found.blocks:
        return
    if found.fstype == "ext4":
        number, order = _EXT4_RESIZE, struct.pack("=Q", blocks)
    elif found.fstype == "xfs":
        number, order = _XFS_GROW, struct.pack("=QI4x", blocks, found.inode_percent)
    else:
        raise Unsupported(f"a file system of type {found.fstype} cannot be grown")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, number, order)
    finally:
        os.close(fd)
