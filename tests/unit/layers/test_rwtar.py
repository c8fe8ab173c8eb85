import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from lamina.changeset.whiteout import WhiteoutDialect
from lamina.layers.rwtar import write_changes, write_tree
from lamina.layers.unpack import UnpackTarget, unpack
from lamina.rootfs.diff import Change, ChangeKind


def written(tree: Path) -> list[tarfile.TarInfo]:
    out = io.BytesIO()
    write_tree(tree, out)
    assert out.getvalue().endswith(bytes(1024))
    assert len(out.getvalue()) % 512 == 0
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        return tar.getmembers()


def test_names_come_in_byte_order_a_directory_before_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")
    (tmp_path / "a-b").write_text("2")
    (tmp_path / "B").write_text("3")
    assert [info.name for info in written(tmp_path)] == ["B", "a", "a/x", "a-b"]


def test_hard_links_name_the_first_and_sockets_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    os.link(tmp_path / "one", tmp_path / "two")
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(tmp_path)
        try:
            listening.bind("socket")
        finally:
            os.chdir(before)
    first, second = written(tmp_path)
    assert (first.name, second.name, second.linkname, second.type) == ("one", "two", "one", tarfile.LNKTYPE)


def test_headers_are_those_of_dockerd(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    os.chmod(tmp_path / "f", 0o4755)
    os.utime(tmp_path / "f", ns=(1, 1_700_000_000_999_999_999))
    out = io.BytesIO()
    write_tree(tmp_path, out)
    block = out.getvalue()[:512]
    assert block[100:108] == b"0004755\0"
    assert block[136:148] == b"%011o\0" % 1_700_000_000
    assert block[257:265] == b"ustar\x0000"
    assert block[265:329] == bytes(64)


def test_changes_are_sorted_by_path_and_deletions_become_whiteouts(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")
    (tmp_path / "a-b").write_text("2")
    changes = [
        Change(ChangeKind.MODIFY, "/a"),
        Change(ChangeKind.ADD, "/a/x"),
        Change(ChangeKind.DELETE, "/a/gone"),
        Change(ChangeKind.ADD, "/a-b"),
    ]
    out = io.BytesIO()
    write_changes(tmp_path, changes, 1_700_000_000_600_000_000, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        found = tar.getmembers()
    assert [info.name for info in found] == ["a", "a-b", "a/.wh.gone", "a/x"]
    assert (found[2].mode, found[2].size, found[2].mtime) == (0, 0, 1_700_000_001)


def test_a_tree_unpacked_again_is_the_same_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/er" / ("n" * 200)).write_bytes(os.urandom(3_000_000))
    (tree / "ümlaut").symlink_to("t" * 300)
    os.mkfifo(tree / "fifo")
    out = io.BytesIO()
    write_tree(tree, out)
    (tmp_path / "back").mkdir()
    unpack(io.BytesIO(out.getvalue()), UnpackTarget(tmp_path / "back", tmp_path / "split", WhiteoutDialect.NONE))
    again = io.BytesIO()
    write_tree(tmp_path / "back", again)
    assert again.getvalue() == out.getvalue()


@pytest.mark.root
def test_overlay_marks_become_whiteouts_in_the_place_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "trusted.overlay.opaque", b"y")
    (tmp_path / "d/f").write_text("1")
    os.mknod(tmp_path / "c", 0o020000, 0)
    out = io.BytesIO()
    write_tree(tmp_path, out, WhiteoutDialect.OVERLAY)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        found = tar.getmembers()
    assert [(info.name, info.mode) for info in found] == [
        (".wh.c", 0o600), ("d", 0o755), ("d/.wh..wh..opq", 0o755), ("d/f", 0o644),
    ]  # fmt: skip


@pytest.mark.root
def test_capabilities_are_kept_and_nothing_else(tmp_path: Path) -> None:
    capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    (tmp_path / "ping").write_text("elf")
    os.setxattr(tmp_path / "ping", "security.capability", capability)
    os.setxattr(tmp_path / "ping", "user.mine", b"1")
    (info,) = written(tmp_path)
    assert list(info.pax_headers) == ["SCHILY.xattr.security.capability"]


def test_aufs_names_go_out_as_they_are_without_its_book_keeping(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".wh..wh..opq").touch()
    (tmp_path / ".wh..wh.plnk").mkdir()
    (tmp_path / ".wh..wh.plnk" / "1.2").write_bytes(b"x")
    (tmp_path / ".wh..wh.aufs").touch()
    (tmp_path / ".wh.one").touch()
    os.link(tmp_path / ".wh.one", tmp_path / ".wh.two")
    (tmp_path / "file").write_bytes(b"content")
    out = io.BytesIO()
    write_tree(tmp_path, out, WhiteoutDialect.AUFS)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [".wh.one", ".wh.two", "d", "d/.wh..wh..opq", "file"]
    assert [member.isreg() for member in members] == [True, True, False, True, True]
    assert [member.size for member in members] == [0, 0, 0, 0, 7]
