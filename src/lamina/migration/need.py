"""How much room a store needs with another driver, and whether there is that much (blocking)."""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import StorageFull
from lamina.layers.record import Layer
from lamina.migration.stores import Store
from lamina.oci.digest import ChainId
from lamina.rootfs.walk import walk
from lamina.storage.driver import KeepsUpper

_FICLONE = 0x40049409
"""linux/fs.h: make a file share the other's blocks."""
_FULL_COPIES = "vfs"
_LEAST_BYTES = 16 << 20
_PER_LAYER_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Need:
    """What would be copied. `disk_bytes` is what the new store is expected to take, with a margin of a tenth.

    `free_bytes` is None where it cannot be known: a pool of its own.
    """

    layers: int
    layer_bytes: int
    containers: int
    container_bytes: int
    disk_bytes: int
    free_bytes: int | None

    def check(self, place: Path, driver: str) -> None:
        """Raises StorageFull when the new store is not expected to fit."""
        if self.free_bytes is not None and self.disk_bytes > self.free_bytes:
            raise StorageFull(
                f"the store of {driver} is expected to take {shown(self.disk_bytes)}, and the file system of {place} "
                f"has {shown(self.free_bytes)} left",
                hint="remove images or containers that are no longer needed, or enlarge the file system",
            )


def need(root: Path, old: Store, target: str, *, names: list[str], missing: set[ChainId], on_devices: bool) -> Need:
    """What the target driver will need for `missing` layers and the writable layers `names`.

    `on_devices`: it keeps them on devices of its own, whose room cannot be known here.
    """
    layers = old.layers.layers()
    copied = [layer for layer in layers if layer.chain_id in missing]
    written = {name: _written(old, name) for name in names}
    layer_bytes = sum(layer.size_bytes for layer in copied)
    disk = layer_bytes + sum(written.values())
    if target == _FULL_COPIES and not shares_blocks(root):
        whole = _whole_sizes(layers)
        disk = sum(whole[layer.chain_id] for layer in copied)
        for name, size in written.items():
            parent = old.layers.rw(name).parent
            below = whole[parent] if parent is not None else 0
            disk += 2 * below + size  # the init layer is a copy too
    disk += disk // 10 + _PER_LAYER_BYTES * (len(copied) + 2 * len(names)) + _LEAST_BYTES
    return Need(
        len(copied), layer_bytes, len(names), sum(written.values()), disk, None if on_devices else _free(root, target)
    )


def _written(old: Store, name: str) -> int:
    """Bytes that one container's own files take: with a directory of its own changes, holes do not count."""
    driver = old.driver
    if not isinstance(driver, KeepsUpper):
        return old.layers.rw_usage(name).size_bytes
    upper = driver.upper(old.layers.rw(name).mount_id)
    return sum(seen.status.st_blocks * 512 for seen in walk(upper) if seen.first is None)


def shares_blocks(root: Path) -> bool:
    """Can files of the data root share their blocks (reflink)?"""
    with tempfile.TemporaryFile(dir=root) as one, tempfile.TemporaryFile(dir=root) as other:
        one.write(bytes(4096))
        one.flush()
        try:
            fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
        except OSError:
            return False
    return True


def _whole_sizes(layers: list[Layer]) -> dict[ChainId, int]:
    """Bytes of each layer with everything below it."""
    by_chain = {layer.chain_id: layer for layer in layers}
    found: dict[ChainId, int] = {}
    for layer in layers:
        total = 0
        at: Layer | None = layer
        while at is not None:
            total += at.size_bytes
            at = by_chain[at.parent] if at.parent is not None else None
        found[layer.chain_id] = total
    return found


def _free(root: Path, target: str) -> int:
    """Room on the file system that the target's home is, or will be, on."""
    place = root / target
    found = os.statvfs(place if place.is_dir() else root)
    return found.f_bavail * found.f_frsize


def shown(size: int) -> str:
    """Bytes for people: `1.23 GB`."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
