from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.storage.driver import Usage
from lamina.storage.usage import usage_of


def test_length_of_everything_but_directories_each_inode_once(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x" * 600)
    os.link(tmp_path / "d/f", tmp_path / "same")
    (tmp_path / "l").symlink_to("a")
    (tmp_path / "empty").touch()
    assert usage_of(tmp_path, counts_devices=True) == Usage(601, 4)


@pytest.mark.root
def test_whiteouts_count_only_where_they_are_devices(tmp_path: Path) -> None:
    os.mknod(tmp_path / "gone", 0o020000, 0)
    assert usage_of(tmp_path, counts_devices=False) == Usage(0, 0)
    assert usage_of(tmp_path, counts_devices=True) == Usage(0, 1)
