from __future__ import annotations

import os
from pathlib import Path

from lamina.rootfs.walk import walk


def test_directories_come_before_their_content_and_siblings_in_byte_order(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for name in ("a/x", "a-b", os.fsdecode(b"\xff"), "B"):
        (tmp_path / name).touch()
    assert [seen.name for seen in walk(tmp_path)] == [b"B", b"a", b"a/x", b"a-b", b"b", b"\xff"]


def test_hard_links_name_the_first_of_them(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "d").mkdir()
    os.link(tmp_path / "one", tmp_path / "d/two")
    os.link(tmp_path / "one", tmp_path / "zzz")
    found = {seen.name: seen.first for seen in walk(tmp_path)}
    assert found == {b"d": None, b"d/two": None, b"one": b"d/two", b"zzz": b"d/two"}


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("/")
    assert [(seen.name, seen.is_directory) for seen in walk(tmp_path)] == [(b"l", False)]
