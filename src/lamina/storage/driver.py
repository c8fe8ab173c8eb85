"""What a storage driver promises (blocking).

A driver knows cache ids and mounts. It has never heard of images, tar archives, digests, containers or HTTP. Every new
layer is writable until it is sealed; only sealed layers are parents; a container's writable layer is simply never
sealed. So there is one `create`, not three.

`tests/conformance/test_storage_driver.py` is this contract as cases, run over every driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from lamina.changeset.whiteout import WhiteoutDialect as WhiteoutDialect  # noqa: PLC0414 - drivers find it here
from lamina.ids import CacheId
from lamina.kernel.mounts import Mount
from lamina.rootfs.diff import Touched


@dataclass(frozen=True, slots=True)
class Usage:
    """What one layer takes, without its parents."""

    size_bytes: int
    inodes: int


class StorageDriver(Protocol):
    """Where layers live, and how a stack of them becomes one tree."""

    name: ClassVar[str]

    def create(self, cache_id: CacheId, parent: CacheId | None) -> None:
        """Make a writable layer that shows exactly the tree of `parent` (None: an empty root, 0755 root:root).

        After: `attach` works and writes go to this layer alone. On error nothing of the layer is left.

        Raises:
            AlreadyExists: the id is taken.
            NoSuchLayer: no such parent.
            LayerInUse: the parent is not sealed.
            StorageFull: no room.
        """

    def attach(self, cache_id: CacheId) -> tuple[Mount, ...]:
        """Make the layer ready and say how to mount it, in order; an empty tuple means `tree()` is the tree itself.

        A sealed layer is mounted read-only. Mounts nothing. Again is fine.
        """

    def tree(self, cache_id: CacheId) -> Path:
        """Where the layer's tree is seen once its mounts are in place: the mount point, or a directory in it."""

    def mount_point(self, cache_id: CacheId) -> Path:
        """Where to look whether the layer is mounted. The tree itself where nothing is ever mounted."""

    def detach(self, cache_id: CacheId) -> None:
        """The caller has unmounted; release what `attach` made ready. Again is fine."""

    def seal(self, cache_id: CacheId, *, durable: bool = True) -> None:
        """From now on the layer is read-only and may be a parent; its data is on disk. Again is fine.

        `durable=False` leaves the data to the kernel's write-back: for what can be made again (a container's init
        layer), and for layers of a root that another engine wrote, which are sealed again when the root is opened.

        Raises:
            NoSuchLayer: no such layer.
        """

    def remove(self, cache_id: CacheId) -> None:
        """Remove the layer and everything the driver keeps for it. An unknown id is fine (a crash may have got it).

        Raises:
            LayerInUse: it has children or is mounted.
        """

    def cache_ids(self) -> frozenset[CacheId]:
        """The layers that are really there, for recovery."""

    def usage(self, cache_id: CacheId) -> Usage:
        """This layer only."""

    def describe(self, cache_id: CacheId) -> Mapping[str, str]:
        """`GraphDriver.Data` of inspect."""

    def status(self) -> Sequence[tuple[str, str]]:
        """Rows of `docker info`."""

    def close(self) -> None:
        """Release the driver's own resources; layers stay as they are. Twice is fine."""


@runtime_checkable
class KeepsUpper(Protocol):
    """A driver that holds a layer's own changes in one directory."""

    dialect: WhiteoutDialect

    def upper(self, cache_id: CacheId) -> Path:
        """The directory of this layer's own changes, in `dialect`."""

    def lowers(self, cache_id: CacheId) -> tuple[Path, ...]:
        """The directories below it in `dialect`, uppermost first; empty for a layer without parent."""


@runtime_checkable
class Rebases(Protocol):
    """A driver whose layers can be filled before their parents are there: layers of one image unpack side by side."""

    def rebase(self, cache_id: CacheId, parent: CacheId) -> None:
        """Put an unsealed layer that was created without parent on top of the sealed `parent`.

        Raises:
            LayerInUse: the layer is sealed, or the parent is not.
        """


@runtime_checkable
class LimitsSize(Protocol):
    """A driver that can bound one layer."""

    def limit_size(self, cache_id: CacheId, limit_bytes: int) -> None:
        """Writes beyond `limit_bytes` fail with EDQUOT or ENOSPC from now on.

        Raises:
            Unsupported: the file system of this data root cannot, although others could.
        """


@runtime_checkable
class LimitsByDefault(Protocol):
    """A driver that was given a limit for every writable layer that asks for none of its own."""

    default_limit_bytes: int | None


@runtime_checkable
class TellsChanges(Protocol):
    """A driver whose file system knows what was changed in a layer, so that nothing else need be looked at."""

    def touched(self, cache_id: CacheId, parent: CacheId) -> Touched | None:
        """What may differ between a layer and its parent; None when that is not known.

        As of the call: what is written meanwhile may be missing. Writes the layer's data out.
        """


@runtime_checkable
class Warns(Protocol):
    """A driver that knows of something that whoever runs it should know."""

    warnings: tuple[str, ...]
    """As found when it was opened: sentences for people, which `info` repeats."""
