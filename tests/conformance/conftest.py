"""The `bench` every storage case works at: one driver on a fresh root, which must be left without mounts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lamina.errors import LaminaError
from lamina.ids import CacheId
from lamina.kernel.mounts import mount_table, unmount
from lamina.rootfs.diff import Change, Touched, changes
from lamina.rootfs.remove import remove_tree
from lamina.storage.driver import StorageDriver
from lamina.storage.mounting import Mounts
from tests.conformance.grounds import disk_in_memory
from tests.conformance.hosts import STORAGE, Ground, Host
from tests.conformance.trees import Edit, Shown, apply_edits, shown

SLOW = bool(os.environ.get("LAMINA_TEST_SLOW"))
"""Set in the virtual machine, which has no processor of its own: cases that only repeat repeat less."""


class Bench:
    """A driver, its mounts, and the handful of words the cases are written in."""

    def __init__(self, host: Host, root: Path) -> None:
        self.host = host
        self.root = root
        self.opened: list[StorageDriver] = []
        self.reopen()

    def reopen(self) -> None:
        """As after a daemon was killed: nothing is remembered but what is on disk and mounted."""
        self.driver: StorageDriver = self.host.open(self.root)
        self.opened.append(self.driver)
        self.mounts = Mounts(self.driver)

    def close(self) -> None:
        """End the driver; then those before it, which a daemon that is killed takes along: one may have a timer yet."""
        self.driver.close()
        for driver in self.opened[:-1]:
            with suppress(LaminaError, OSError):
                driver.close()

    def layer(self, name: str, parent: str | None = None, *edits: Edit, sealed: bool = False) -> CacheId:
        cache_id = CacheId(name)
        self.driver.create(cache_id, None if parent is None else CacheId(parent))
        self.edit(name, *edits)
        if sealed:
            self.driver.seal(cache_id, durable=False)
        return cache_id

    def edit(self, name: str, *edits: Edit) -> None:
        with self.mounts.mounted(CacheId(name)) as tree:
            apply_edits(tree, edits)

    def shows(self, name: str, *, with_links: bool = True) -> dict[str, Shown]:
        with self.mounts.mounted(CacheId(name)) as tree:
            return shown(tree, with_links=with_links)

    def changes(self, name: str, parent: str, touched: Touched | None = None) -> list[Change]:
        """By comparing the two complete trees; with `touched` only what may differ."""
        with self.mounts.mounted(CacheId(name)) as new, self.mounts.mounted(CacheId(parent)) as old:
            return changes(new, old, touched)


@pytest.fixture(scope="session")
def disk() -> Iterator[Path]:
    """One ext4 in memory for all cases; each makes its own directory on it."""
    with disk_in_memory() as found:
        yield found


@pytest.fixture
def place(disk: Path) -> Iterator[Path]:
    """A short path of the case's own on that disk, which is empty again afterwards."""
    found = Path(tempfile.mkdtemp(dir=disk, prefix="c"))
    yield found
    remove_tree(found)


@pytest.fixture(params=STORAGE, ids=lambda host: host.name)
def bench(request: pytest.FixtureRequest, place: Path) -> Iterator[Bench]:
    host: Host = request.param
    host.require()
    with benched(host, host.ground, place / "ground") as found:
        yield found


@contextmanager
def benched(host: Host, ground_of: Ground, place: Path) -> Iterator[Bench]:
    """A bench on a ground of its own; at the end nothing may be mounted that was not before."""
    with ground_of(place) as ground:
        before = set(mounts_below(place))
        found = Bench(host, ground / "root")
        try:
            yield found
        finally:
            found.close()
            left = [mounted for mounted in mounts_below(place) if mounted not in before]
            for mounted in reversed(left):
                unmount(Path(mounted), detach=True)
            remove_tree(ground / "root")
    assert not left, "the case left mounts behind"


def mounts_below(directory: Path) -> list[str]:
    return [entry.target for entry in mount_table() if Path(entry.target).is_relative_to(directory)]


def names_below(bench: Bench) -> set[str]:
    return {
        os.path.relpath(os.path.join(top, name), bench.root)
        for top, directories, files in os.walk(bench.root)
        for name in directories + files
    }
