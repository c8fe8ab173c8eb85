"""Many directories as one, by hard links."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lamina.errors import Unsupported
from lamina.rootfs.merge import AufsMarks, OverlayMarks, merge_stack

MARKS = OverlayMarks("trusted.overlay.")


def tree(root: Path, *names: str) -> Path:
    """Directories end in `/`; a file holds the name of its layer."""
    root.mkdir(exist_ok=True)
    for name in names:
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_text(root.name)
    return root


def merged(tmp_path: Path, *stack: Path, marks: OverlayMarks | AufsMarks = MARKS) -> Path:
    target = tmp_path / "merged"
    target.mkdir()
    merge_stack(stack, target, marks)
    return target


def names_in(root: Path) -> list[str]:
    return sorted(os.fspath(found.relative_to(root)) for found in root.rglob("*"))


def test_the_topmost_name_wins_and_nothing_is_copied(tmp_path: Path) -> None:
    low = tree(tmp_path / "low", "a", "b", "d/x", "d/y", "was-dir/in", "was-file")
    high = tree(tmp_path / "high", "a", "d/y", "was-dir", "was-file/in")
    found = merged(tmp_path, high, low)
    assert names_in(found) == ["a", "b", "d", "d/x", "d/y", "was-dir", "was-file", "was-file/in"]
    assert [(found / name).read_text() for name in ("a", "b", "d/x", "d/y")] == ["high", "low", "low", "high"]
    assert (found / "b").stat().st_ino == (low / "b").stat().st_ino


def test_a_file_between_hides_the_directory_below_it(tmp_path: Path) -> None:
    low, middle, high = (
        tree(tmp_path / "low", "d/old"),
        tree(tmp_path / "middle", "d"),
        tree(tmp_path / "high", "d/new"),
    )
    assert names_in(merged(tmp_path, high, middle, low)) == ["d", "d/new"]


def test_aufs_marks_are_carried_out_and_left_out(tmp_path: Path) -> None:
    low = tree(tmp_path / "low", "a", "d/x", "keep")
    high = tree(tmp_path / "high", ".wh.a", "d/.wh..wh..opq", "d/y", ".wh..wh.plnk/1.2", ".wh..wh.aufs")
    assert names_in(merged(tmp_path, high, low, marks=AufsMarks())) == ["d", "d/y", "keep"]


def test_hard_links_stay_one_inode(tmp_path: Path) -> None:
    low = tree(tmp_path / "low", "one", "d/")
    os.link(low / "one", low / "d/two")
    found = merged(tmp_path, tree(tmp_path / "high", "d/"), low)
    assert (found / "one").stat().st_ino == (found / "d/two").stat().st_ino


def test_symlinks_and_directory_metadata_are_the_topmost_ones(tmp_path: Path) -> None:
    low, high = tree(tmp_path / "low", "d/x"), tree(tmp_path / "high", "d/y")
    (low / "link").symlink_to("/etc")
    (high / "d").chmod(0o2750)
    os.utime(high / "d", ns=(1, 2))
    os.utime(high, ns=(3, 4))
    found = merged(tmp_path, high, low)
    assert os.readlink(found / "link") == "/etc"
    assert stat.S_IMODE((found / "d").stat().st_mode) == 0o2750
    assert ((found / "d").stat().st_mtime_ns, found.stat().st_mtime_ns) == (2, 4)


def test_names_that_are_not_text_and_deep_trees_merge(tmp_path: Path) -> None:
    low = tree(tmp_path / "low", os.fsdecode(b"\xff\xfe"), "/".join(["deep"] * 150) + "/f")
    assert len(names_in(merged(tmp_path, low))) == 152


@pytest.mark.root
class TestWithOverlaysMarks:
    def test_whiteouts_and_opaque_directories_are_carried_out(self, tmp_path: Path) -> None:
        low = tree(tmp_path / "low", "gone", "d/hidden", "back", "device")
        middle = tree(tmp_path / "middle", "d/")
        os.mknod(middle / "gone", stat.S_IFCHR, 0)
        os.mknod(middle / "back", stat.S_IFCHR, 0)
        os.mknod(middle / "never-was", stat.S_IFCHR, 0)
        os.setxattr(middle / "d", "trusted.overlay.opaque", b"y")
        os.setxattr(middle / "d", "user.note", b"kept")
        high = tree(tmp_path / "high", "back")
        os.mknod(high / "null", stat.S_IFCHR, os.makedev(1, 3))
        found = merged(tmp_path, high, middle, low)
        assert names_in(found) == ["back", "d", "device", "null"]
        assert os.listxattr(found / "d") == ["user.note"]
        assert (found / "null").stat().st_rdev == os.makedev(1, 3)

    def test_what_refers_to_another_layer_is_refused(self, tmp_path: Path) -> None:
        low = tree(tmp_path / "low", "d/", "f")
        os.setxattr(low / "d", "trusted.overlay.redirect", b"/elsewhere")
        with pytest.raises(Unsupported, match="redirect_dir"):
            merged(tmp_path, low)

    def test_a_file_with_metadata_alone_is_refused(self, tmp_path: Path) -> None:
        low = tree(tmp_path / "low", "f")
        os.truncate(low / "f", 0)
        os.truncate(low / "f", 100)
        os.setxattr(low / "f", "trusted.overlay.metacopy", b"")
        with pytest.raises(Unsupported, match="metacopy"):
            merged(tmp_path, low)

    def test_a_file_that_cannot_have_more_links_is_copied(self, tmp_path: Path) -> None:
        low = tree(tmp_path / "low", "f")
        os.setxattr(low / "f", "user.note", b"n")
        most = 65_000  # ext4
        try:
            for number in range(most):
                os.link(low / "f", tmp_path / f"l{number}")
        except OSError:
            pass
        else:
            return  # this file system has room for more: nothing to show
        found = merged(tmp_path, low)
        assert (found / "f").read_text() == "low"
        assert os.getxattr(found / "f", "user.note") == b"n"
        assert (found / "f").stat().st_ino != (low / "f").stat().st_ino
