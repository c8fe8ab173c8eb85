"""Which file system a device holds, from its own superblock: no blkid, no udev (blocking: reads the device).

Sources: xfs_fs.h `xfs_dsb` (big-endian, at 0); ext4 `struct ext4_super_block` (little-endian, at 1024).
"""

from __future__ import annotations

import os
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 4096

_EXT4_AT, _EXT4_MAGIC = 1024, 0xEF53
_EXT4_64BIT = 0x80


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a file system says of itself. `blocks` of `block_bytes` each are what it uses of its device.

    `inode_percent` is the share of the space xfs may give to inodes; 0 for others.
    """

    fstype: str
    uuid: str
    block_bytes: int
    blocks: int
    inode_percent: int = 0

    @property
    def size_bytes(self) -> int:
        return self.block_bytes * self.blocks


def read_superblock(device: Path) -> Superblock | None:
    """The file system on the device; None when it is none of ext4 and xfs, or none at all."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return decode_superblock(os.pread(fd, HEAD_BYTES, 0))
    finally:
        os.close(fd)


def decode_superblock(head: bytes) -> Superblock | None:
    """The same from the first `HEAD_BYTES` of the device."""
    if head[:4] == b"XFSB" and len(head) >= 128:
        block_bytes, blocks = struct.unpack_from(">IQ", head, 4)
        return Superblock("xfs", str(uuid.UUID(bytes=head[32:48])), block_bytes, blocks, head[127])
    if len(head) < _EXT4_AT + 0x154:
        return None
    own = head[_EXT4_AT:]
    if struct.unpack_from("<H", own, 0x38)[0] != _EXT4_MAGIC:
        return None
    (low,) = struct.unpack_from("<I", own, 4)
    (shift,) = struct.unpack_from("<I", own, 0x18)
    (incompatible,) = struct.unpack_from("<I", own, 0x60)
    high = struct.unpack_from("<I", own, 0x150)[0] if incompatible & _EXT4_64BIT else 0
    if shift > 6:
        return None
    return Superblock("ext4", str(uuid.UUID(bytes=own[0x68:0x78])), 1024 << shift, high << 32 | low)
