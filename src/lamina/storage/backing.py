"""The name of the file system below a directory, as `docker info` prints it (blocking)."""

from __future__ import annotations

from pathlib import Path

from lamina.kernel import libc

# linux/magic.h, with the names of moby daemon/graphdriver/driver_linux.go
_NAMES = {
    0x61756673: "aufs",
    0x9123683E: "btrfs",
    0x28CD3D45: "cramfs",
    0x0000F15F: "ecryptfs",
    0x0000EF53: "extfs",
    0xF2F52010: "f2fs",
    0x65735546: "fuse",
    0x000072B6: "jffs2",
    0x00006969: "nfs",
    0x794C7630: "overlayfs",
    0x858458F6: "ramfs",
    0x52654973: "reiserfs",
    0x0000517B: "smb",
    0x73717368: "squashfs",
    0x01021994: "tmpfs",
    0x58465342: "xfs",
    0x2FC12FC1: "zfs",
}


def backing_name(directory: Path) -> str:
    """`extfs`, `xfs`, `btrfs`, …; `<unknown>` for one without a name here."""
    return _NAMES.get(libc.file_system_type(directory), "<unknown>")
