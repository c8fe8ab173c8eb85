"""The table of implementations and where they run: adding a storage driver is one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lamina.storage.driver import StorageDriver
from lamina.storage.overlay2.driver import Overlay2
from lamina.storage.vfs.driver import Vfs


@dataclass(frozen=True)
class Host:
    """One storage driver on one kind of host. `where` says where its kernel part is: this kernel, vm, or absent.

    `seals_by_mount`: what is sealed and has a parent is mounted read-only. vfs only promises not to write.
    `inherits_root`: mode and owner of the root directory itself come from the parent. dockerd's overlay2 makes every
    layer's root anew, 0755 root:root, and ours keeps its layout.
    """

    name: str
    open: Callable[[Path], StorageDriver]
    where: str = "this kernel"
    seals_by_mount: bool = True
    inherits_root: bool = True


STORAGE = (
    Host("overlay2", Overlay2, inherits_root=False),
    Host("vfs", Vfs, seals_by_mount=False),
)
