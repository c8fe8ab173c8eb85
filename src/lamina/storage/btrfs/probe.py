"""Whether a directory is good for layers as btrfs subvolumes (blocking)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lamina.errors import Unsupported
from lamina.kernel import btrfs
from lamina.storage.backing import backing_name
from lamina.storage.room import needing_room

_REMEDY = "put the data root on btrfs: mkfs.btrfs DEVICE, mount it, and start with --data-root below the mount"


def probe(directory: Path) -> None:
    """Make an empty subvolume in the existing `directory` and remove it; takes no commit and leaves nothing.

    Raises:
        Unsupported: with the reason, and what would help as the hint.
    """
    if not btrfs.is_on_btrfs(directory):
        where = f"{directory} is on {backing_name(directory)}, not on btrfs"
        if not _kernel_has_btrfs():
            raise Unsupported(f"{where}, which this kernel does not know", hint=f"modprobe btrfs, then {_REMEDY}")
        raise Unsupported(where, hint=_REMEDY)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with needing_room("trying btrfs"):
            _try(fd, f"lamina-probe-{os.urandom(6).hex()}")
    except OSError as error:
        raise Unsupported(f"btrfs cannot be used in {directory}: {error.strerror}", hint=_hint(error)) from error
    finally:
        os.close(fd)


def _try(fd: int, name: str) -> None:
    btrfs.subvolume(fd)
    if btrfs.quotas_enabled(fd):  # a search of the trees, which changes are found by
        return  # older kernels would keep a quota group of the subvolume that is tried, for ever
    btrfs.create_subvolume(fd, name)
    btrfs.destroy_subvolume(fd, name)


def _kernel_has_btrfs() -> bool:
    return "\tbtrfs\n" in Path("/proc/filesystems").read_text(encoding="ascii")


def _hint(error: OSError) -> str:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return "run as root, outside of a user namespace: btrfs keeps these calls for the host's root"
    if error.errno == errno.ENOTTY:
        return "use Linux 5.7 or later"
    if error.errno == errno.EROFS:
        return "mount the file system writable"
    return "the kernel log (dmesg) says what btrfs did not like"
