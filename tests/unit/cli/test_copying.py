"""`cp`: docker's rules about places, and archives of containers that want out of theirs."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from lamina.cli import copying
from lamina.errors import InvalidArgument, LaminaError, UnsafeArchive


@pytest.mark.parametrize(
    ("source", "target", "facts", "place"),
    [
        ("/etc/hosts", "dir", (False, True, True), ("dir", None)),
        ("/etc/hosts", "dir/new", (False, False, False), ("dir", ("hosts", "new"))),
        ("/etc/hosts", "dir/old", (False, True, False), ("dir", ("hosts", "old"))),
        ("/etc", "dir", (True, True, True), ("dir", None)),
        ("/etc", "new", (True, False, False), (".", ("etc", "new"))),
        ("/etc/.", "new", (True, False, False), (".", (".", "new"))),
        ("/etc/.", "dir/", (True, True, True), ("dir/", None)),
        ("/etc", "new/", (True, False, False), (".", ("etc", "new"))),
    ],
)
def test_where_a_copy_goes(
    source: str, target: str, facts: tuple[bool, bool, bool], place: tuple[str, tuple[str, str] | None]
) -> None:
    is_dir, exists, into = facts
    assert copying.arranged(source, target, source_is_dir=is_dir, target_exists=exists, target_is_dir=into) == place


@pytest.mark.parametrize(("target", "facts"), [("new/", (False, False, False)), ("file", (True, True, False))])
def test_where_a_copy_cannot_go(target: str, facts: tuple[bool, bool, bool]) -> None:
    is_dir, exists, into = facts
    with pytest.raises(InvalidArgument):
        copying.arranged("/etc", target, source_is_dir=is_dir, target_exists=exists, target_is_dir=into)


def archive(*members: tuple[str, bytes, str]) -> io.BytesIO:
    """Name, type, and content or link target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, rest in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = 0o4755
            if kind == tarfile.REGTYPE:
                info.size = len(rest)
                tar.addfile(info, io.BytesIO(rest.encode()))
            else:
                info.linkname = rest
                tar.addfile(info)
    out.seek(0)
    return out


def unpack(data: io.BytesIO, place: Path, rename: tuple[str, str] | None = None) -> list[str]:
    return list(copying.unpack(data, str(place), rename, keep_owner=False))


@pytest.mark.parametrize(
    "members",
    [
        [("../out", tarfile.REGTYPE, "x")],
        [("a/../../out", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, ".."), ("link/out", tarfile.REGTYPE, "x")],
        [("hard", tarfile.LNKTYPE, "../secret")],
        [("link", tarfile.SYMTYPE, "../secret"), ("link", tarfile.DIRTYPE, "")],
    ],
)
def test_nothing_is_written_outside(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(LaminaError):
        unpack(archive(*members), place)
    assert sorted(os.listdir(tmp_path)) == ["place", "secret"]
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_a_file_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "secret").write_text("secret")
    (place / "file").symlink_to(tmp_path / "secret")
    unpack(archive(("file", tarfile.REGTYPE, "new")), place)
    assert (place / "file").read_text() == "new"
    assert not (place / "file").is_symlink()
    assert (tmp_path / "secret").read_text() == "secret"


def test_set_id_bits_and_devices_stay_behind(tmp_path: Path) -> None:
    left = unpack(archive(("tool", tarfile.REGTYPE, "x"), ("disk", tarfile.BLKTYPE, "")), tmp_path)
    assert left == ["disk"]
    assert (tmp_path / "tool").stat().st_mode & 0o7777 == 0o755


def test_renaming_and_links(tmp_path: Path) -> None:
    members = [("etc", tarfile.DIRTYPE, ""), ("etc/a", tarfile.REGTYPE, "x"), ("etc/b", tarfile.LNKTYPE, "etc/a"),
               ("etc/c", tarfile.SYMTYPE, "a")]  # fmt: skip
    unpack(archive(*members), tmp_path, ("etc", "new"))
    assert sorted(os.listdir(tmp_path)) == ["new"]
    assert (tmp_path / "new/a").stat().st_nlink == 2
    assert (tmp_path / "new/c").read_text() == "x"


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_bytes(b"\0" * 3_000_000 + b"end")
    (source / "link").symlink_to("deep/file")
    os.utime(source / "deep/file", ns=(5_000_000_000, 5_250_000_000))
    pieces: list[bytes] = []
    copying.packer(str(source), "copy", follow=False)(pieces.append)
    target = tmp_path / "target"
    target.mkdir()
    unpack(io.BytesIO(b"".join(pieces)), target)
    assert (target / "copy/deep/file").read_bytes() == (source / "deep/file").read_bytes()
    assert (target / "copy/deep/file").stat().st_mtime_ns == 5_250_000_000
    assert os.readlink(target / "copy/link") == "deep/file"


def test_a_file_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive):
        unpack(archive(("./", tarfile.REGTYPE, "x")), tmp_path)
