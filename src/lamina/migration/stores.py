"""A data root taken from every daemon, and the two stores in it, opened (blocking)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import Conflict, NotFound
from lamina.layers.pool import WorkerPool
from lamina.layers.store import LayerStore
from lamina.storage.driver import StorageDriver
from lamina.storage.mounting import Mounts
from lamina.storage.select import open_driver
from lamina.volumes.boltfile import BoltFile


@dataclass(frozen=True, slots=True)
class Store:
    """The layers that one driver keeps. `images` is `<root>/image/<driver>`; `warnings` tell what is damaged."""

    driver: StorageDriver
    mounts: Mounts
    layers: LayerStore
    images: Path
    warnings: tuple[str, ...]


@contextlib.contextmanager
def owning(root: Path) -> Iterator[None]:
    """Inside, no daemon has the data root: its own lock is held, dockerd's as well as Lamina's.

    Raises:
        NotFound: there is no data root.
        Conflict: a daemon has it.
    """
    place = root / "volumes/metadata.db"
    if not place.is_file():
        raise NotFound(f"{root} is no data root: it has no {place.relative_to(root)}", hint="name it: --data-root DIR")
    file = BoltFile(place)
    try:
        yield
    finally:
        file.close()


def owned_within(root: Path, timeout_s: float) -> bool:
    """Can the data root be had, now or as soon as whoever has it lets go?"""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with owning(root):
                return True
        except Conflict:
            if time.monotonic() >= deadline:
                return False
        time.sleep(0.05)


@contextlib.contextmanager
def opened(root: Path, driver_name: str, options: Mapping[str, str], pool: WorkerPool) -> Iterator[Store]:
    """One driver's store, with what a crash left of it put in order and unmounted.

    Raises:
        Unsupported: the driver does not work here. InvalidArgument: an option it does not know.
    """
    driver = open_driver(driver_name, root, options)
    try:
        mounts = Mounts(driver)
        mounts.recover(())
        images = root / "image" / driver_name
        layers = LayerStore(images / "layerdb", driver, mounts, pool)
        warnings = layers.load()
        yield Store(driver, mounts, layers, images, tuple(warnings))
    finally:
        driver.close()


def require_idle(root: Path, names: list[str]) -> None:
    """Refuse to touch layers of containers that run without their daemon.

    Raises:
        Conflict: some do.
    """
    running = sorted(set(names) & _named_by_processes(set(names)))
    if not running:
        return
    shown = ", ".join(name[:12] for name in running[:5]) + (", …" if len(running) > 5 else "")
    raise Conflict(
        f"{len(running)} of the containers in {root} run: {shown}",
        hint=f"start the daemon, then: lamina stop {' '.join(name[:12] for name in running)}",
    )


def _named_by_processes(names: set[str]) -> set[str]:
    """The container ids that stand in the command line of some process: each has a monitor, ours or containerd's."""
    found: set[str] = set()
    for place in Path("/proc").iterdir():
        if not place.name.isdecimal():
            continue
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        found.update(name for word in words if (name := word.decode("ascii", "replace")) in names)
    return found
