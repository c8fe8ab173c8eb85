"""Which union this host can show aufs' layers with: the kernel's aufs, or our own on FUSE (blocking).

Both are tried in a temporary directory below the data root; nothing stays behind.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import Unsupported
from lamina.kernel import fuse, mounts
from lamina.rootfs.remove import remove_tree
from lamina.storage.backing import backing_name
from lamina.storage.room import needing_room

SCRATCH_PREFIX = "lamina-probe-"
_NOT_UNDER_KERNEL = {"aufs", "btrfs", "ecryptfs"}
"""Source: moby daemon/graphdriver/aufs/aufs.go, Init."""
_INIT = struct.Struct("<40xIIIII")
"""The first message of a FUSE mount: header; then major, minor, read-ahead, flags, more flags. Source: linux/fuse.h."""
_INIT_EXT = 1 << 30
_PASSTHROUGH = 1 << (37 - 32)
_REMEDY = "use a kernel with FUSE (modprobe fuse), and run as root"


@dataclass(frozen=True, slots=True)
class Features:
    """What was found. `passthrough`: the kernel reads and writes files of the union without asking its server."""

    backing: str
    kernel: bool
    dirperm1: bool
    passthrough: bool

    @property
    def union(self) -> str:
        """For people: which of the two is in use."""
        if self.kernel:
            return "kernel aufs"
        return f"lamina unionfs on FUSE (passthrough: {'yes' if self.passthrough else 'no'})"


def probe(root: Path) -> Features:
    """Try what there is below the existing directory `root`; the kernel's aufs is preferred.

    Raises:
        Unsupported: neither works, with the reason, and what would help as the hint.
    """
    backing = backing_name(root)
    try:
        with needing_room("trying aufs"), _scratch(root) as place:
            if backing not in _NOT_UNDER_KERNEL and _kernel_has_aufs():
                return Features(backing, kernel=True, dirperm1=_takes_dirperm1(place), passthrough=False)
            offered = _offered_by_fuse(place)
    except PermissionError as error:
        raise Unsupported(f"aufs may not be tried in {root}: {error.strerror}", hint="run as root") from error
    # A backing file that lies on a stacked file system itself cannot be passed through.
    return Features(backing, kernel=False, dirperm1=True, passthrough=offered and backing != "overlayfs")


def _kernel_has_aufs() -> bool:
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1:] == ["aufs"] for line in file)


def _takes_dirperm1(place: Path) -> bool:
    """Docker's own trial: a mount with the option."""
    for name in ("rw", "ro", "union"):
        (place / name).mkdir()
    data = f"br:{place}/rw=rw:{place}/ro=ro+wh,dirperm1,xino=/dev/shm/aufs.xino"
    try:
        mounts.mount(mounts.Mount("aufs", "none", place / "union", data=data))
    except OSError:
        return False
    mounts.unmount(place / "union", detach=True)
    return True


def _offered_by_fuse(place: Path) -> bool:
    """Mount FUSE without serving it, and read what the kernel offers in its first message: passthrough or not."""
    target = place / "fuse"
    target.mkdir()
    device = fuse.open_device()
    try:
        try:
            fuse.mount(device, os.fspath(target), subtype="lamina-probe", source="none")
        except PermissionError:
            raise
        except OSError as error:
            raise Unsupported(f"FUSE cannot be mounted: {error.strerror}", hint=_REMEDY) from error
        try:
            message = os.read(device, 1 << 17)
        finally:
            mounts.unmount(target, detach=True)
    finally:
        os.close(device)
    if len(message) < _INIT.size:
        return False
    _, _, _, flags, more = _INIT.unpack_from(message)
    return bool(flags & _INIT_EXT and more & _PASSTHROUGH)


@contextlib.contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=root))
    try:
        yield place
    finally:
        remove_tree(place)
