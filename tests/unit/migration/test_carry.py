from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.errors import StorageFull
from lamina.kernel.mounts import Mount, mount, unmount
from lamina.migration.carry import Lost, carry
from lamina.migration.difference import Difference, Put, difference
from lamina.rootfs.copytree import copy_tree
from lamina.rootfs.remove import remove_tree
from tests.conformance.trees import (
    Append,
    Chmod,
    Chown,
    Edit,
    HardLink,
    MakeDir,
    Node,
    Remove,
    Rename,
    SetXattr,
    Shown,
    Symlink,
    Write,
    apply_edits,
    shown,
)

pytestmark = pytest.mark.root

BASE: tuple[Edit, ...] = (
    MakeDir("d"),
    Write("d/a", b"a"),
    Write("d/b", b"bb"),
    HardLink("d/c", "d/b"),
    HardLink("e", "d/b"),
    MakeDir("d/deep"),
    Write("d/deep/leaf", b"leaf"),
    Symlink("link", "d"),
    Write("file", b"file"),
    Node("dev", stat.S_IFCHR, os.makedev(1, 3)),
)


def trees(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A tree, and two copies of it: one to be edited, one to be made equal."""
    found = tmp_path / "old", tmp_path / "new", tmp_path / "made"
    found[0].mkdir()
    apply_edits(found[0], BASE)
    for copy in found[1:]:
        copy_tree(found[0], copy)
    return found


def made_equal(old: Path, new: Path, made: Path) -> Difference:
    found = difference(new, old)
    assert carry(found, new, made) == []
    assert _whole(made) == _whole(new)
    return found


def _whole(root: Path) -> tuple[dict[str, Shown], dict[str, int]]:
    """The tree, and what `shown` leaves out: the times of directories."""
    times = {".": root.lstat().st_mtime_ns}
    for folder, names, _ in os.walk(root):
        for name in names:
            place = Path(folder, name)
            if not place.is_symlink():
                times[str(place.relative_to(root))] = place.stat().st_mtime_ns
    return shown(root), times


def paths(found: Difference) -> set[str]:
    return {step.path for step in found.steps}


def test_nothing_differs_in_a_copy(tmp_path: Path) -> None:
    old, new, made = trees(tmp_path)
    found = made_equal(old, new, made)
    assert found.steps == []


@pytest.mark.parametrize(
    "edits",
    [
        (Append("file", b"more"),),
        (Remove("d"),),
        (Remove("d"), Write("d", b"a file now")),
        (Remove("file"), MakeDir("file"), Write("file/in", b"x")),
        (Remove("link"), MakeDir("link", 0o2770), Write("link/in", b"x"), Chown("link/in", 0, 0)),
        (Rename("d/deep", "moved"), Chmod("moved", 0o700)),
        (Remove("d/b"), Write("d/b", b"one name of three is another file")),
        (Append("d/b", b"all three names"),),
        (HardLink("d/deep/fourth", "e"),),
        (HardLink("again", "file"), HardLink("d/again", "file"), Remove("file")),
        (Remove("dev"), Node("dev", stat.S_IFCHR, os.makedev(1, 5))),
        (Node("socket", stat.S_IFSOCK), Node("fifo", stat.S_IFIFO), Node("block", stat.S_IFBLK, os.makedev(7, 1))),
        (SetXattr("file", "user.x", b"\0"), SetXattr("d", "user.y", b"1"), SetXattr("link", "trusted.z", b"2")),
        (Chown("d", 5, 6), Chmod("d", 0o1777), Chown("link", 7, 8)),
        (Remove("link"), Symlink("link", "elsewhere")),
    ],
    ids=str,
)
def test_every_edit_is_made_again(tmp_path: Path, edits: tuple[Edit, ...]) -> None:
    old, new, made = trees(tmp_path)
    apply_edits(new, edits)
    made_equal(old, new, made)


def test_content_that_changed_behind_size_and_time_is_found(tmp_path: Path) -> None:
    old, new, made = trees(tmp_path)
    before = (new / "file").stat()
    (new / "file").write_bytes(b"ELIF")
    os.utime(new / "file", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert paths(made_equal(old, new, made)) == {"file"}


def test_an_attribute_that_is_gone_goes(tmp_path: Path) -> None:
    old, new, made = trees(tmp_path)
    for root in (old, made):
        os.setxattr(root / "d", "user.gone", b"x")
        os.setxattr(root / "file", "user.gone", b"x")
    made_equal(old, new, made)


def test_nothing_is_inherited_from_the_directory(tmp_path: Path) -> None:
    """Neither its group nor its default access list reaches what is made in it."""
    old, new, made = trees(tmp_path)
    acl = bytes.fromhex("0200000001000700ffffffff02000700e903000004000500ffffffff10000700ffffffff20000000ffffffff")
    for root in (old, new, made):
        for name in ("d", "."):
            os.chown(root / name, 3, 44)
            (root / name).chmod(0o2775)
            os.setxattr(root / name, "system.posix_acl_default", acl)
    apply_edits(new, [Write("d/mine", b"x"), MakeDir("d/dir"), Write("top", b"x"), Symlink("d/sym", "x")])
    for name in ("d/mine", "d/dir", "top", "d/sym"):
        os.chown(new / name, 0, 0, follow_symlinks=False)
        for attribute in os.listxattr(new / name, follow_symlinks=False):
            if attribute.startswith("system."):
                os.removexattr(new / name, attribute)
    made_equal(old, new, made)


def test_holes_stay_holes(tmp_path: Path) -> None:
    old, new, made = trees(tmp_path)
    with (new / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    carry(difference(new, old), new, made)
    assert (made / "sparse").stat().st_size == 1 << 30
    assert (made / "sparse").stat().st_blocks < 1000


def test_progress_tells_the_bytes_of_files(tmp_path: Path) -> None:
    old, new, made = trees(tmp_path)
    apply_edits(new, [Write("one", b"1" * 1000), Write("two", b"2" * 234), HardLink("three", "two")])
    told: list[int] = []
    found = difference(new, old)
    assert carry(found, new, made, told.append) == []
    assert sum(told) == found.size_bytes == 1234


def test_a_symlink_on_the_way_is_not_followed(tmp_path: Path) -> None:
    old, new, made = trees(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    apply_edits(new, [Write("d/escape", b"x")])
    found = difference(new, old)
    shutil.rmtree(made / "d")
    (made / "d").symlink_to(outside)
    with pytest.raises(OSError, match="d"):
        carry(found, new, made)
    assert list(outside.iterdir()) == []


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A writable overlay over a copy of the base tree."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    apply_edits(tmp_path / "lower", BASE)
    mount(
        Mount(
            "overlay", "overlay", tmp_path / "merged", data="lowerdir=lower,upperdir=upper,workdir=work", cwd=tmp_path
        )
    )
    try:
        yield tmp_path / "merged"
    finally:
        unmount(tmp_path / "merged", detach=True)


def test_what_the_target_cannot_hold_is_told_and_the_rest_is_there(tmp_path: Path, overlay: Path) -> None:
    """On overlay a device 0:0 means that a name is gone."""
    old, new, _ = trees(tmp_path)
    apply_edits(new, [Node("white", stat.S_IFCHR, 0), Write("d/white-neighbour", b"x"), Node("d/out", stat.S_IFCHR, 0)])
    lost = carry(difference(new, old), new, overlay)
    assert [entry.path for entry in lost] == ["d/out", "white"]
    assert all(isinstance(entry, Lost) and entry.reason for entry in lost)
    assert (overlay / "d/white-neighbour").read_bytes() == b"x"
    assert not [name for name in os.listdir(overlay) if name.startswith(".lamina")]


def test_a_full_target_says_so(tmp_path: Path) -> None:
    old, new, _ = trees(tmp_path)
    apply_edits(new, [Write("large", bytes(4 << 20))])
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    mount(Mount("tmpfs", "tmpfs", tiny, data="size=1m"))
    try:
        copy_tree(old, tiny)
        with pytest.raises(StorageFull, match="no room left"):
            carry(difference(new, old), new, tiny)
    finally:
        unmount(tiny, detach=True)


def test_deeper_than_descriptors_allow_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    here = os.getcwd()
    try:
        os.chdir(deep)
        for _ in range(450):
            os.mkdir("x")
            os.chdir("x")
    finally:
        os.chdir(here)
    with pytest.raises(OSError, match="nested more than") as caught:
        difference(deep, None)
    assert caught.value.errno == errno.ENAMETOOLONG
    remove_tree(deep)


NAMES = ["d", "d/a", "d/b", "d/deep", "d/deep/leaf", "e", "file", "new", "d/new", "d/deep/new", "other"]
_edits = st.one_of(
    st.builds(Write, st.sampled_from(NAMES), st.binary(max_size=3), st.sampled_from([0o600, 0o4755])),
    st.builds(Append, st.sampled_from(NAMES), st.binary(min_size=1, max_size=3)),
    st.builds(MakeDir, st.sampled_from(NAMES)),
    st.builds(Remove, st.sampled_from(NAMES)),
    st.builds(Rename, st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.builds(HardLink, st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.builds(Chmod, st.sampled_from(NAMES), st.sampled_from([0o700, 0o2755])),
    st.builds(Symlink, st.sampled_from(NAMES), st.just("d")),
)


@settings(max_examples=150)
@given(edits=st.lists(_edits, max_size=12), onto=st.sampled_from(["copy", "overlay"]))
def test_any_edits_are_made_again(edits: list[Edit], onto: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("carry")
    old, new, made = trees(tmp_path)
    for edit in edits:
        try:
            edit.apply(new)
        except OSError:
            continue  # not possible in the present state
    if onto == "overlay":
        for name in ("upper", "work", "merged"):
            (tmp_path / name).mkdir()
        status = made.stat()  # an upper directory has a root of its own
        os.utime(tmp_path / "upper", ns=(status.st_atime_ns, status.st_mtime_ns))
        data = "lowerdir=made,upperdir=upper,workdir=work"
        mount(Mount("overlay", "overlay", tmp_path / "merged", data=data, cwd=tmp_path))
    try:
        made_equal(old, new, tmp_path / "merged" if onto == "overlay" else made)
    finally:
        if onto == "overlay":
            unmount(tmp_path / "merged", detach=True)
        remove_tree(tmp_path)


def test_steps_of_a_group_come_after_what_makes_their_directories(tmp_path: Path) -> None:
    old, new, made = trees(tmp_path)
    apply_edits(new, [MakeDir("a-dir"), HardLink("a-dir/name", "e")])
    found = made_equal(old, new, made)
    assert {step.path for step in found.steps if isinstance(step, Put)} == {"a-dir/name", "d/b", "d/c", "e"}
