"""A disk without room, without inodes, without leave to write: told, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import LaminaError, StorageFull
from lamina.ids import CacheId
from lamina.kernel import libc
from lamina.storage.driver import LimitsSize
from tests.conformance.conftest import Bench, benched, names_below
from tests.conformance.hosts import STORAGE, Host
from tests.conformance.trees import BASE, MakeDir, Write

pytestmark = pytest.mark.root

TINY = pytest.mark.parametrize("host", [host for host in STORAGE if host.tiny], ids=lambda host: host.name)
CHILD = CacheId("child")


@TINY
def test_without_inodes_a_creation_is_told_and_leaves_nothing(host: Host, place: Path) -> None:
    host.require()
    assert host.tiny is not None
    with benched(host, host.tiny, place / "ground") as bench:
        bench.layer("base", None, *(Write(f"f{number}") for number in range(20)), sealed=True)
        with no_inodes(place / "ground", spare=2):
            before = names_below(bench)
            with pytest.raises(StorageFull, match="no room for layer child"):
                bench.driver.create(CHILD, CacheId("base"))
            assert names_below(bench) == before
            assert bench.driver.cache_ids() == {"base"}
        bench.layer("child", "base")
        assert "f19" in bench.shows("child")


@TINY
def test_at_every_number_of_inodes_a_creation_is_whole_or_absent(host: Host, place: Path) -> None:
    host.require()
    assert host.tiny is not None
    with benched(host, host.tiny, place / "ground") as bench:
        bench.layer("base", None, *(Write(f"f{number}") for number in range(5)), sealed=True)
        for spare in range(12):
            before = names_below(bench)
            with no_inodes(place / "ground", spare=spare):
                try:
                    bench.driver.create(CHILD, CacheId("base"))
                except StorageFull:
                    assert names_below(bench) == before
                    continue
            assert len(bench.shows("child")) == 6
            bench.driver.remove(CHILD)
            assert names_below(bench) == before


@TINY
def test_without_room_a_layer_that_is_there_stays_readable_and_removable(host: Host, place: Path) -> None:
    host.require()
    assert host.tiny is not None
    with benched(host, host.tiny, place / "ground") as bench:
        bench.layer("base", None, Write("f", b"content"), sealed=True)
        before = names_below(bench)
        bench.layer("child", "base")
        with bench.mounts.mounted(CHILD) as tree, pytest.raises(OSError, match="No space left"):
            (tree / "big").write_bytes(bytes(4 << 20))
        bench.reopen()
        assert bench.shows("child")["f"].content == b"content"
        bench.driver.remove(CHILD)
        assert names_below(bench) == before
        bench.layer("again", "base", Write("fits", b"x" * 10_000))
        assert bench.shows("again")["fits"].content == b"x" * 10_000


@TINY
def test_on_a_disk_that_became_read_only_nothing_happens_by_halves(host: Host, place: Path) -> None:
    """As a kernel does with a file system it finds damaged."""
    host.require()
    assert host.tiny is not None
    with benched(host, host.tiny, place / "ground") as bench:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("open", "base")
        before = names_below(bench)
        with read_only(place / "ground"):
            with pytest.raises((LaminaError, OSError)):
                bench.driver.create(CHILD, CacheId("base"))
            with pytest.raises((LaminaError, OSError)):
                bench.driver.remove(CacheId("open"))
            with pytest.raises((LaminaError, OSError)):
                bench.driver.seal(CacheId("open"))
        assert names_below(bench) == before
        bench.reopen()
        assert bench.driver.cache_ids() == {"base", "open"}
        bench.edit("open", Write("mine"))
        bench.driver.remove(CacheId("open"))
        bench.layer("child", "base")
        assert "a file" in bench.shows("child")


def _limiting() -> list[Host]:
    return [host for host in STORAGE if host.limits]


@pytest.mark.parametrize("host", _limiting(), ids=lambda host: host.name)
class TestLimits:
    """graphtest's SetQuota."""

    def test_a_layer_of_50_mb_takes_25_and_no_more_than_50(self, host: Host, place: Path) -> None:
        host.require()
        assert host.limits is not None
        with benched(host, host.limits, place / "ground") as bench:
            limited(bench, 50 << 20)
            with bench.mounts.mounted(CHILD) as tree:
                fill(tree / "small", 25 << 20)
                with pytest.raises(OSError, match=r"quota|No space left"):
                    fill(tree / "large", 50 << 20)
                os.unlink(tree / "large")
            with bench.mounts.mounted(CHILD) as tree:  # zfs gives room back with its next transaction: an unmount waits
                fill(tree / "fits again", 10 << 20)
            bench.layer("other", "base")
            with bench.mounts.mounted(CacheId("other")) as tree:
                fill(tree / "free", 60 << 20)

    def test_a_limit_counts_directories_made_later_and_lasts(self, host: Host, place: Path) -> None:
        host.require()
        assert host.limits is not None
        with benched(host, host.limits, place / "ground") as bench:
            limited(bench, 50 << 20)
            bench.edit("child", MakeDir("a"), MakeDir("a/b"))
            bench.reopen()
            with bench.mounts.mounted(CHILD) as tree, pytest.raises(OSError, match=r"quota|No space left"):
                fill(tree / "a/b/large", 60 << 20)

    def test_a_limit_goes_with_its_layer(self, host: Host, place: Path) -> None:
        host.require()
        assert host.limits is not None
        with benched(host, host.limits, place / "ground") as bench:
            before = None
            for _ in range(2):
                limited(bench, 50 << 20, base=before is None)
                with bench.mounts.mounted(CHILD) as tree:
                    fill(tree / "f", 30 << 20)
                bench.driver.remove(CHILD)
                before = names_below(bench)
            assert bench.driver.cache_ids() == {"base"}


def limited(bench: Bench, limit_bytes: int, *, base: bool = True) -> None:
    if base:
        bench.layer("base", None, *BASE, sealed=True)
    bench.layer("child", "base")
    assert isinstance(bench.driver, LimitsSize)
    bench.driver.limit_size(CHILD, limit_bytes)


def fill(place: Path, size: int) -> None:
    """Write real blocks, on the disk before this returns: some limits are only seen when they are."""
    with place.open("wb", buffering=0) as file:
        chunk = os.urandom(1 << 20)
        for _ in range(size >> 20):
            file.write(chunk)
            os.fsync(file.fileno())


@contextlib.contextmanager
def no_inodes(disk: Path, *, spare: int) -> Iterator[None]:
    """All inodes of the file system taken but so many."""
    made = []
    filler = disk / "filler"
    filler.mkdir()
    try:
        with contextlib.suppress(OSError):
            while True:
                made.append(filler / f"{len(made)}")
                made[-1].touch()
        made.pop()
        for _ in range(spare):
            made.pop().unlink()
        yield
    finally:
        for place in made:
            place.unlink(missing_ok=True)
        filler.rmdir()


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    libc.mount("", place, "", libc.MS_REMOUNT | libc.MS_RDONLY)
    try:
        yield
    finally:
        libc.mount("", place, "", libc.MS_REMOUNT)
