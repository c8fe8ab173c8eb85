"""The first write to a file of a lower layer: the file comes up with all it has, and the lower one stays as it was."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.ids import CacheId
from tests.conformance.conftest import Bench
from tests.conformance.trees import (
    Chmod,
    Chown,
    Edit,
    HardLink,
    MakeDir,
    Remove,
    Rename,
    SetXattr,
    Symlink,
    Write,
    apply_edits,
    shown,
)

pytestmark = pytest.mark.root

PING = bytes.fromhex("0100000200200000000000000000000000000000")
FILE: tuple[Edit, ...] = (
    MakeDir("d", 0o2750),
    Chown("d", 11, 12),
    Chmod("d", 0o2750),
    SetXattr("d", "trusted.note", b"directory"),
    Write("d/file", b"0123456789" * 20_000),
    Chown("d/file", 5, 6),
    Chmod("d/file", 0o1640),
    SetXattr("d/file", "user.note", b"\x00\xff"),
    SetXattr("d/file", "trusted.note", b"file"),
)


def append(place: Path) -> None:
    with place.open("ab") as file:
        file.write(b"more")


def overwrite_the_middle(place: Path) -> None:
    with place.open("r+b") as file:
        file.seek(100_000)
        file.write(b"X")


def through_a_mapping(place: Path) -> None:
    with place.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[3] = ord("X")


def cut_off(place: Path) -> None:
    os.truncate(place, 5)


def empty(place: Path) -> None:
    place.open("wb").close()


WRITES: tuple[Callable[[Path], None], ...] = (append, overwrite_the_middle, through_a_mapping, cut_off, empty)


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_a_first_write_keeps_all_but_content_and_time(bench: Bench, write: Callable[[Path], None]) -> None:
    bench.layer("base", None, *FILE, sealed=True)
    bench.layer("middle", "base", sealed=True)
    before = bench.shows("base")
    bench.layer("child", "middle")
    oracle = bench.root.parent / "oracle"
    oracle.write_bytes(before["d/file"].content)
    write(oracle)
    with bench.mounts.mounted(CacheId("child")) as tree:
        write(tree / "d/file")
        assert (tree / "d/file").read_bytes() == oracle.read_bytes(), "seen at once"
    was, now = before["d/file"], bench.shows("child")["d/file"]
    assert now.content == oracle.read_bytes()
    assert (now.mode, now.uid, now.gid, now.xattrs) == (was.mode, was.uid, was.gid, was.xattrs)
    assert bench.shows("child")["d"] == before["d"], "the directory above came up as it was"
    assert bench.shows("base") == bench.shows("middle") == before


def test_a_first_change_of_metadata_keeps_everything_else(bench: Bench) -> None:
    bench.layer("base", None, *FILE, SetXattr("d/file", "security.capability", PING), sealed=True)
    before = bench.shows("base")
    edits: dict[str, Edit] = {
        "mode": Chmod("d/file", 0o4755),
        "xattr": SetXattr("d/file", "user.other", b"new"),
    }
    for name, edit in edits.items():
        bench.layer(name, "base", edit)
        was, now = before["d/file"], bench.shows(name)["d/file"]
        assert (now.content, now.mtime_ns, now.uid) == (was.content, was.mtime_ns, was.uid)
        assert dict(was.xattrs).items() <= dict(now.xattrs).items()
    assert bench.shows("mode")["d/file"].mode == 0o4755
    bench.layer("owner", "base", Chown("d/file", 7, 8))
    now = bench.shows("owner")["d/file"]
    assert (now.uid, now.gid, now.content, now.mtime_ns) == (7, 8, was.content, was.mtime_ns)
    assert bench.shows("base") == before


def test_setting_times_comes_up_too(bench: Bench) -> None:
    bench.layer("base", None, *FILE, sealed=True)
    bench.layer("child", "base")
    with bench.mounts.mounted(CacheId("child")) as tree:
        os.utime(tree / "d/file", ns=(1_000_000_007, 2_000_000_009))
        status = (tree / "d/file").stat()
        assert (status.st_atime_ns, status.st_mtime_ns) == (1_000_000_007, 2_000_000_009)
    assert bench.shows("child")["d/file"].mtime_ns == 2_000_000_009
    assert bench.shows("base")["d/file"].mtime_ns != 2_000_000_009


def test_a_hard_linked_file_keeps_its_content_under_each_name(bench: Bench) -> None:
    """Whether the other name follows is the driver's; that it shows a whole file, and the parent the old one, is not."""
    bench.layer("base", None, MakeDir("d"), Write("one", b"content"), HardLink("d/two", "one"), sealed=True)
    before = bench.shows("base")
    bench.layer("child", "base")
    with bench.mounts.mounted(CacheId("child")) as tree:
        append(tree / "d/two")
    found = bench.shows("child")
    assert found["d/two"].content == b"contentmore"
    assert found["one"].content in {b"content", b"contentmore"}
    assert bench.shows("base") == before


def test_a_linked_file_that_came_up_stays_one_inode_with_its_new_names(bench: Bench) -> None:
    bench.layer("base", None, Write("one", b"content"), sealed=True)
    bench.layer("child", "base", HardLink("two", "one"))
    with bench.mounts.mounted(CacheId("child")) as tree:
        append(tree / "two")
        assert (tree / "one").read_bytes() == b"contentmore"
        assert (tree / "one").stat().st_ino == (tree / "two").stat().st_ino
    assert bench.shows("child")["one"].links == ("one", "two")


def test_an_open_file_reads_what_is_written_through_another(bench: Bench) -> None:
    """Both opened for writing: one opened before, for reading, may stay the lower file (overlayfs.rst)."""
    bench.layer("base", None, Write("f", b"content"), sealed=True)
    bench.layer("child", "base")
    with bench.mounts.mounted(CacheId("child")) as tree:
        with (tree / "f").open("r+b", buffering=0) as one, (tree / "f").open("r+b", buffering=0) as other:
            one.write(b"C")
            assert other.read() == b"Content"
            os.unlink(tree / "f")
            one.write(b"O")
            assert os.pread(other.fileno(), 9, 0) == b"COntent"
        assert not (tree / "f").exists()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1 << 20])
def test_files_of_every_size_come_up_whole(bench: Bench, size: int) -> None:
    content = os.urandom(size)
    bench.layer("base", None, Write("f", content), sealed=True)
    bench.layer("child", "base")
    with bench.mounts.mounted(CacheId("child")) as tree:
        append(tree / "f")
    assert bench.shows("child")["f"].content == content + b"more"


RENAMES: dict[str, tuple[Edit, ...]] = {
    "a directory, with what is in it from two layers": (Rename("d", "moved"),),
    "a directory and back": (Rename("d", "moved"), Rename("moved", "d")),
    "a directory into another": (Rename("d", "e/d"),),
    "a directory over an empty one": (MakeDir("empty"), Rename("d", "empty")),
    "a file over a lower one": (Rename("d/low", "d/mid"),),
    "a file away, and another in its place": (Rename("d/low", "x"), Write("d/low", b"new")),
    "two files with each other": (Rename("d/low", "x"), Rename("d/mid", "d/low"), Rename("x", "d/mid")),
    "a symlink": (Rename("d/link", "link"),),
    "a directory away, and a file in its place": (Rename("d", "moved"), Write("d", b"a file")),
    "a directory away, and a new one in its place": (Rename("d", "moved"), MakeDir("d"), Write("d/low", b"new")),
    "a renamed file removed again": (Rename("d/low", "x"), Remove("x")),
}


@pytest.mark.parametrize("edits", RENAMES.values(), ids=RENAMES.keys())
def test_names_move_across_layers(bench: Bench, edits: tuple[Edit, ...]) -> None:
    base: tuple[Edit, ...] = (MakeDir("d"), Write("d/low", b"low"), MakeDir("d/sub"), Write("d/sub/f"), MakeDir("e"))
    middle: tuple[Edit, ...] = (Write("d/mid", b"mid"), Symlink("d/link", "low"), Remove("d/sub/f"), Write("d/sub/g"))
    bench.layer("base", None, *base, sealed=True)
    bench.layer("middle", "base", *middle, sealed=True)
    before = bench.shows("middle")
    bench.layer("child", "middle", *edits, sealed=True)
    bench.layer("top", "child")
    oracle = bench.root.parent / "oracle"
    oracle.mkdir()
    apply_edits(oracle, (*base, *middle, *edits))
    expected = shown(oracle)
    for name in ("child", "top"):
        found = bench.shows(name)
        found["."] = expected["."]
        assert found == expected
    assert bench.shows("middle") == before


def test_an_opaque_directory_hides_all_that_lies_below_it(bench: Bench) -> None:
    bench.layer("base", None, MakeDir("d"), MakeDir("d/sub"), Write("d/sub/old"), Write("d/file"), sealed=True)
    bench.layer("middle", "base", Write("d/sub/middle"), sealed=True)
    bench.layer("opaque", "middle", Remove("d"), MakeDir("d"), MakeDir("d/sub"), Write("d/sub/new"), sealed=True)
    bench.layer("above", "opaque", Write("d/sub/newer"), sealed=True)
    bench.layer("top", "above")
    assert {name for name in bench.shows("top") if name != "."} == {"d", "d/sub", "d/sub/new", "d/sub/newer"}
    bench.edit("top", Remove("d/sub"), MakeDir("d/sub"), Remove("d/sub"))
    assert {name for name in bench.shows("top") if name != "."} == {"d"}
    bench.edit("top", Remove("d"))
    assert set(bench.shows("top")) == {"."}
    assert "d/sub/middle" in bench.shows("middle")
