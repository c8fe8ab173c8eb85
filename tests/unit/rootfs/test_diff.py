from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.rootfs.copytree import copy_tree
from lamina.rootfs.diff import Change, ChangeKind, Touched, change_usage, changes, upper_changes
from tests.conformance.trees import Append, Chmod, Edit, MakeDir, Remove, SetXattr, Symlink, Write, apply_edits

A, C, D = ChangeKind.ADD, ChangeKind.MODIFY, ChangeKind.DELETE
OLD: tuple[Edit, ...] = (MakeDir("d"), Write("d/f", b"1"), Write("d/g", b"2"), MakeDir("e"), Write("f", b"3"))


def after(tmp_path: Path, *edits: Edit) -> list[tuple[ChangeKind, str]]:
    (tmp_path / "old").mkdir()
    apply_edits(tmp_path / "old", OLD)
    copy_tree(tmp_path / "old", tmp_path / "new")
    apply_edits(tmp_path / "new", edits)
    return [(change.kind, change.path) for change in changes(tmp_path / "new", tmp_path / "old")]


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ((), []),
        ([Write("d/new")], [(C, "/d"), (A, "/d/new")]),
        ([Append("d/f", b"+")], [(C, "/d"), (C, "/d/f")]),
        ([Remove("d/f")], [(C, "/d"), (D, "/d/f")]),
        ([Remove("d")], [(D, "/d")]),
        ([Remove("d"), Write("d")], [(C, "/d")]),
        ([Remove("f"), MakeDir("f"), Write("f/x")], [(C, "/f"), (A, "/f/x")]),
        ([MakeDir("n"), MakeDir("n/m")], [(A, "/n"), (A, "/n/m")]),
        ([Chmod("e", 0o700)], [(C, "/e")]),
        ([Chmod(".", 0o700)], []),
        ([Remove("f"), Symlink("f", "d")], [(C, "/f")]),
        ([Write("d-", b""), Write("d/x")], [(C, "/d"), (A, "/d/x"), (A, "/d-")]),
    ],
)
def test_what_an_edit_changes(tmp_path: Path, edits: list[Edit], expected: list[tuple[ChangeKind, str]]) -> None:
    assert after(tmp_path, *edits) == expected


def test_the_trees_may_be_named_by_symlinks(tmp_path: Path) -> None:
    """As /proc/self/fd does; what the links are must not be taken for what the trees are."""
    for name in ("old", "new"):
        apply_edits(tmp_path, [MakeDir(name), Write(f"{name}/f", name.encode() * 2), Symlink(f"to-{name}", name)])
    assert changes(tmp_path / "to-new", tmp_path / "to-old") == changes(tmp_path / "new", tmp_path / "old")


def test_without_an_old_tree_everything_is_added(tmp_path: Path) -> None:
    apply_edits(tmp_path, OLD)
    assert [change.path for change in changes(tmp_path, None)] == ["/d", "/d/f", "/d/g", "/e", "/f"]
    assert {change.kind for change in changes(tmp_path, None)} == {A}


@pytest.mark.parametrize(
    ("old_ns", "new_ns", "seen"),
    [
        (5_000_000_000, 5_000_000_000, False),
        (5_000_000_000, 5_999_999_999, False),
        (5_999_999_999, 5_000_000_000, False),
        (5_000_000_001, 5_000_000_002, True),
        (5_000_000_000, 6_000_000_000, True),
    ],
)
def test_times_agree_when_one_has_no_fraction(tmp_path: Path, old_ns: int, new_ns: int, *, seen: bool) -> None:
    for name, when in (("old", old_ns), ("new", new_ns)):
        (tmp_path / name).mkdir()
        apply_edits(tmp_path / name, [Write("f", b"same", mtime_ns=when)])
    found = changes(tmp_path / "new", tmp_path / "old")
    assert found == ([Change(C, "/f")] if seen else [])


def test_times_of_directories_are_no_change(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "d").mkdir(parents=True)
    os.utime(tmp_path / "new/d", (1, 1))
    assert changes(tmp_path / "new", tmp_path / "old") == []


@pytest.mark.root
def test_a_changed_capability_is_a_change(tmp_path: Path) -> None:
    capability = SetXattr("f", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    assert after(tmp_path, capability) == [(C, "/f")]


def test_usage_counts_added_and_modified_files_once(tmp_path: Path) -> None:
    after(tmp_path, Write("d/f", b"12345"), Remove("d/g"), Write("n", b"678"))
    os.link(tmp_path / "new/n", tmp_path / "new/n2")
    size_bytes, inodes = change_usage(tmp_path / "new", tmp_path / "old")
    assert (size_bytes, inodes) == (8, 3)  # d, d/f, n


def test_the_letters_are_those_docker_prints() -> None:
    assert [kind.letter for kind in (C, A, D)] == ["C", "A", "D"]


@pytest.mark.root
class TestUpper:
    """Against the stack that the kernel would show; random trees are in the storage conformance suite."""

    OPAQUE = "trusted.overlay.opaque"

    def test_a_whiteout_of_nothing_is_no_change(self, tmp_path: Path) -> None:
        for name in ("upper", "low"):
            (tmp_path / name).mkdir()
        os.mknod(tmp_path / "upper/ghost", 0o020000, 0)
        assert upper_changes(tmp_path / "upper", self.OPAQUE, [tmp_path / "low"]) == []

    def test_names_whited_out_below_are_new(self, tmp_path: Path) -> None:
        for name in ("upper", "middle", "low"):
            (tmp_path / name).mkdir()
        (tmp_path / "low/f").write_text("1")
        os.mknod(tmp_path / "middle/f", 0o020000, 0)
        (tmp_path / "upper/f").write_text("1")
        found = upper_changes(tmp_path / "upper", self.OPAQUE, [tmp_path / "middle", tmp_path / "low"])
        assert found == [Change(A, "/f")]

    def test_an_opaque_directory_deletes_what_it_does_not_repeat(self, tmp_path: Path) -> None:
        for name in ("upper/d", "middle/d", "low/d"):
            (tmp_path / name).mkdir(parents=True)
        for name in ("middle/d/m", "low/d/l", "low/d/gone", "upper/d/m"):
            (tmp_path / name).write_text("1")
            os.utime(tmp_path / name, (5, 5))
        os.mknod(tmp_path / "middle/d/gone", 0o020000, 0)
        os.setxattr(tmp_path / "upper/d", self.OPAQUE, b"y")
        found = upper_changes(tmp_path / "upper", self.OPAQUE, [tmp_path / "middle", tmp_path / "low"])
        assert found == [Change(C, "/d"), Change(D, "/d/l")]

    def test_without_lowers_everything_is_added(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d/f").touch()
        assert [change.path for change in upper_changes(tmp_path, self.OPAQUE, [])] == ["/d", "/d/f"]


class TestTouched:
    """A file system that knows what was changed spares a look at the rest; what it names is still compared."""

    def trees(self, tmp_path: Path, *edits: Edit) -> tuple[Path, Path]:
        old, new = tmp_path / "old", tmp_path / "new"
        old.mkdir()
        apply_edits(old, OLD)
        copy_tree(old, new)
        apply_edits(new, edits)
        return new, old

    def test_a_name_with_another_inode_is_compared(self, tmp_path: Path) -> None:
        new, old = self.trees(tmp_path, Append("d/f", b"+"))
        nothing = Touched(frozenset(), frozenset())
        assert changes(new, old, nothing) == changes(new, old) != []

    def test_an_untouched_inode_is_not_looked_at(self, tmp_path: Path) -> None:
        apply_edits(tmp_path, OLD)
        assert changes(tmp_path, tmp_path, Touched(frozenset(), frozenset())) == []
        everything = frozenset(place.lstat().st_ino for place in [tmp_path, *tmp_path.rglob("*")])
        assert changes(tmp_path, tmp_path, Touched(everything)) == []


SWAP = """
import os, sys
from lamina.kernel.libc import RENAME_EXCHANGE, renameat2
os.chdir(sys.argv[1])
while True:
    renameat2("d", "link", RENAME_EXCHANGE)
"""


def test_a_directory_swapped_for_a_symlink_leads_nowhere(tmp_path: Path) -> None:
    """A process in the container may do that at any moment: nothing of the host is listed."""
    outside, new = tmp_path / "outside", tmp_path / "new"
    outside.mkdir()
    (outside / "secret").touch()
    (new / "d").mkdir(parents=True)
    (new / "link").symlink_to(outside)
    swapper = subprocess.Popen([sys.executable, "-c", SWAP, new])
    found: set[str] = set()
    try:
        for _ in range(10_000):
            found |= {change.path for change in changes(new, None)}
    finally:
        swapper.kill()
        swapper.wait()
    assert not any("secret" in path for path in found)
    assert found
