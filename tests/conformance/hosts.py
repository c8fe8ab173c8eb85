"""The table of storage drivers and of what each needs under its data root: adding a driver is one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.kernel.mounts import Mount, mount, unmount
from lamina.storage.aufs.driver import Aufs
from lamina.storage.btrfs.driver import Btrfs
from lamina.storage.driver import StorageDriver
from lamina.storage.overlay2.driver import Overlay2
from lamina.storage.vfs.driver import Vfs
from lamina.storage.zfs.driver import Zfs
from tests.conformance.grounds import xfs_with_project_quotas
from tests.conformance.grounds_aufs import no_union
from tests.conformance.grounds_btrfs import btrfs, no_btrfs
from tests.conformance.grounds_devicemapper import no_devicemapper, on_loop_files, open_on_loop_files
from tests.conformance.grounds_zfs import no_zfs, zfs_dataset

Ground = Callable[[Path], AbstractContextManager[Path]]


@contextmanager
def plain_directory(place: Path) -> Iterator[Path]:
    """The file system that the tests run on."""
    place.mkdir(parents=True)
    yield place


@contextmanager
def tiny_tmpfs(place: Path) -> Iterator[Path]:
    """A file system of 1 MiB and 60 inodes."""
    place.mkdir(parents=True)
    mount(Mount("tmpfs", "tmpfs", place, data="size=1m,nr_inodes=60"))
    try:
        yield place
    finally:
        unmount(place, detach=True)


def nothing_missing() -> str:
    return ""


@dataclass(frozen=True)
class Host:
    """One storage driver and what it stands on.

    `ground` makes the place its data root lies in, and takes it away again; `tiny` the same with next to no room (None:
    the driver has a case of its own for that). `missing` names the part of this kernel that is not there: then the cases
    are skipped here, and run in the virtual machine. `limits` makes a place where the driver can bound one layer (None:
    it cannot anywhere); it skips where the kernel lacks what that takes.

    `seals_by_mount`: what is sealed and has a parent is mounted read-only. vfs only promises not to write.
    `inherits_root`: mode and owner of the root directory itself come from the parent. dockerd's overlay2 makes every
    layer's root anew, 0755 root:root, and ours keeps its layout. `examples` is how many random histories are tried:
    fewer where each mount starts a process.
    """

    name: str
    open: Callable[[Path], StorageDriver]
    ground: Ground = plain_directory
    tiny: Ground | None = tiny_tmpfs
    limits: Ground | None = None
    missing: Callable[[], str] = nothing_missing
    seals_by_mount: bool = True
    inherits_root: bool = True
    examples: int = 60

    def require(self) -> None:
        """Skip the running test where the driver's kernel part is absent."""
        reason = self.missing()
        if reason:
            pytest.skip(f"{self.name}: {reason}")


STORAGE = (
    Host("overlay2", Overlay2, limits=xfs_with_project_quotas, inherits_root=False),
    Host("btrfs", Btrfs, ground=btrfs, tiny=None, limits=btrfs, missing=no_btrfs, seals_by_mount=False),
    Host("zfs", Zfs, ground=zfs_dataset, tiny=None, limits=zfs_dataset, missing=no_zfs),
    Host("devicemapper", open_on_loop_files("ext4"), ground=on_loop_files("ext4"), tiny=None, missing=no_devicemapper),
    Host("aufs", Aufs, missing=no_union, inherits_root=False, examples=12),
    Host("vfs", Vfs, limits=xfs_with_project_quotas, seals_by_mount=False),
)
