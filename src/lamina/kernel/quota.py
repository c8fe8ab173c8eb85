"""Project quotas: a directory tree that may hold so many bytes (blocking).

Every file belongs to a project; what is made in a directory with the inherit flag belongs to the directory's. ext4
(with the feature `project`) and xfs, mounted with `prjquota`, count what each project takes and stop it at its limit.
Source: ioctl_xfs_fsgetxattr(2), quotactl(2), linux/fs.h `struct fsxattr`, linux/dqblk_xfs.h `struct fs_disk_quota`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import Unsupported
from lamina.kernel import libc

_GETXATTR = 0x801C581F
_SETXATTR = 0x401C5820
_FSXATTR = struct.Struct("=IIIII8x")
"""xflags, extsize, nextents, projid, cowextsize."""
_PROJINHERIT = 0x00000200

_PROJECTS = 2
_Q_XGETQUOTA = 0x5803
_Q_XSETQLIM = 0x5804
_DISK_QUOTA = struct.Struct("=bbHI 6Q iiHH 4b 3Q iHh8x")
"""version, flags, fieldmask, id; block hard and soft, inode hard and soft limit, blocks and inodes used; timers; …"""
_FIELDS = 0b1100
"""Block hard and soft limit."""
_BLOCK = 512
_NOT_HERE = frozenset(
    {
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.EINVAL,
        errno.ENOSYS,
        errno.ESRCH,
        errno.ENOTBLK,
        errno.EPERM,
        errno.ENXIO,
        errno.ENODEV,
    }
)


@dataclass(frozen=True, slots=True)
class ProjectUsage:
    """What a project takes, and may take (0: any)."""

    used_bytes: int
    limit_bytes: int


def project_of(directory: Path) -> int:
    """The project of a directory; 0 for none, also where the file system has no projects."""
    fd = _opened(directory)
    try:
        project: int = _FSXATTR.unpack(fcntl.ioctl(fd, _GETXATTR, bytes(_FSXATTR.size)))[3]
    except OSError as error:
        if error.errno in _NOT_HERE:
            return 0
        raise
    finally:
        os.close(fd)
    return project


def set_project(directory: Path, project: int) -> None:
    """Put an empty directory, and all that will ever be made in it, into a project."""
    fd = _opened(directory)
    try:
        flags, extent, _, _, copy_extent = _FSXATTR.unpack(fcntl.ioctl(fd, _GETXATTR, bytes(_FSXATTR.size)))
        fcntl.ioctl(fd, _SETXATTR, _FSXATTR.pack(flags | _PROJINHERIT, extent, 0, project, copy_extent))
    finally:
        os.close(fd)


def limit_project(device: Path, project: int, limit_bytes: int) -> None:
    """Let a project take `limit_bytes`, 0 for any number. `device` is the file system's block device.

    Raises:
        OSError: errno of quotactl(2); ENOSYS, ESRCH, EINVAL and others where quotas are not on.
    """
    blocks = -(-limit_bytes // _BLOCK)
    wanted = _DISK_QUOTA.pack(1, _PROJECTS, _FIELDS, project, blocks, blocks, *[0] * 18)
    libc.quotactl((_Q_XSETQLIM << 8) | _PROJECTS, device, project, wanted)


def usage_of_project(device: Path, project: int) -> ProjectUsage:
    """Raises OSError: ENOENT when nothing is known of it."""
    told = libc.quotactl((_Q_XGETQUOTA << 8) | _PROJECTS, device, project, bytes(_DISK_QUOTA.size))
    found = _DISK_QUOTA.unpack(told)
    return ProjectUsage(found[8] * _BLOCK, found[4] * _BLOCK)


def make_device_node(directory: Path) -> Path:
    """Make `backingFsBlockDev`, a node of the device that `directory` lies on, which quotactl wants; any old one goes.

    Raises:
        OSError: also where devices cannot be made.
    """
    node = directory / "backingFsBlockDev"
    with contextlib.suppress(FileNotFoundError):
        node.unlink()
    os.mknod(node, stat.S_IFBLK | 0o600, directory.stat().st_dev)
    return node


def require_quotas(device: Path, project: int, directory: Path) -> None:
    """Try to limit a project that nothing belongs to.

    Raises:
        Unsupported: the file system keeps no project quotas.
    """
    try:
        limit_project(device, project, 0)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        raise Unsupported(
            f"the file system of {directory} does not support project quotas, or they are not on",
            hint="mount it with the option pquota (xfs; ext4 needs the feature: tune2fs -O project,quota)",
        ) from error


def _opened(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
