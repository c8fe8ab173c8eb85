"""What a storage driver tells of its layers: usage, changes, description."""

from __future__ import annotations

import os

import pytest

from lamina.ids import CacheId
from lamina.layers.rw import keeps_upper
from lamina.rootfs.diff import Change, ChangeKind
from lamina.rootfs.own_changes import own_changes
from tests.conformance.conftest import Bench
from tests.conformance.trees import (
    BASE,
    Append,
    Chmod,
    Edit,
    HardLink,
    MakeDir,
    Remove,
    Write,
)

pytestmark = pytest.mark.root


class TestTelling:
    def test_usage_counts_this_layer_only(self, bench: Bench) -> None:
        bench.layer("base", None, Write("big", b"b" * 100_000), sealed=True)
        bench.layer("child", "base", Write("small", b"s" * 513), MakeDir("d"), HardLink("same", "small"))
        assert bench.driver.usage(CacheId("base")).size_bytes == 100_000
        assert bench.driver.usage(CacheId("child")).size_bytes == 513

    def test_deleting_takes_no_room(self, bench: Bench) -> None:
        bench.layer("base", None, Write("big", b"b" * 100_000), sealed=True)
        bench.layer("child", "base", Remove("big"))
        assert bench.driver.usage(CacheId("child")).size_bytes == 0

    def test_status_and_description_are_text(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in bench.driver.status())
        described = bench.driver.describe(CacheId("child"))
        paths = [part for part in ":".join(described.values()).split(":") if part.startswith("/")]
        assert all(part.startswith(os.fspath(bench.root)) for part in paths)

    def test_changes_of_a_layer(self, bench: Bench) -> None:
        """graphtest's Changes: every third file modified, added, deleted."""
        files = [f"directory-0/file-{number}" for number in range(20)]
        bench.layer("base", None, MakeDir("directory-0"), *(Write(name, b"x") for name in files), sealed=True)
        edits: list[Edit] = []
        expected = {Change(ChangeKind.MODIFY, "/directory-0")}
        for number, name in enumerate(files):
            if number % 3 == 0:
                edits.append(Append(name, b"y"))
                expected.add(Change(ChangeKind.MODIFY, f"/{name}"))
            elif number % 3 == 1:
                edits.append(Write(f"{name}-added"))
                expected.add(Change(ChangeKind.ADD, f"/{name}-added"))
            else:
                edits.append(Remove(name))
                expected.add(Change(ChangeKind.DELETE, f"/{name}"))
        bench.layer("upper", "base", *edits)
        found = bench.changes("upper", "base")
        assert set(found) == expected
        assert len(found) == len(expected)

    def test_a_file_replaced_in_the_same_second_is_seen(self, bench: Bench) -> None:
        """moby #21555."""
        bench.layer("base", None, Write("f", b"one", mtime_ns=5_000_000_001), sealed=True)
        bench.layer("child", "base", Write("f", b"two", mtime_ns=5_000_000_002))
        assert bench.changes("child", "base") == [Change(ChangeKind.MODIFY, "/f")]

    def test_the_upper_directory_tells_the_same_changes(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, MakeDir("d"), Write("d/f"), sealed=True)
        bench.layer("middle", "base", Remove("a file"), Remove("d"), MakeDir("d"), sealed=True)
        bench.layer("child", "middle", Write("a file", b"again"), Remove("etc"), MakeDir("etc"), Chmod("d", 0o700))
        compared = bench.changes("child", "middle")
        assert upper_or_compared(bench, "child", "middle") == compared
        assert Change(ChangeKind.ADD, "/a file") in compared
        assert Change(ChangeKind.DELETE, "/etc/hosts") in compared


def upper_or_compared(bench: Bench, name: str, parent: str) -> list[Change]:
    """The fast way where the driver has one."""
    upper, cache_id = keeps_upper(bench.driver), CacheId(name)
    if upper is None:
        return bench.changes(name, parent)
    return own_changes(upper.upper(cache_id), upper.dialect, upper.lowers(cache_id))
