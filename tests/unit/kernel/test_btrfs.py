"""What of the btrfs calls can be tried without a btrfs; the rest is in tests/conformance/test_btrfs_driver.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.kernel import btrfs
from lamina.kernel.btrfs_removal import remove_subvolume


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("_SUBVOL_CREATE", 0x5000940E),
        ("_SNAP_DESTROY", 0x5000940F),
        ("_TREE_SEARCH_V2", 0xC0709411),
        ("_INO_LOOKUP", 0xD0009412),
        ("_SNAP_CREATE_V2", 0x50009417),
        ("_SUBVOL_GETFLAGS", 0x80089419),
        ("_SUBVOL_SETFLAGS", 0x4008941A),
        ("_FS_INFO", 0x8400941F),
        ("_GET_DEV_STATS", 0xC4089434),
        ("_QUOTA_CTL", 0xC0109428),
        ("_QGROUP_CREATE", 0x4010942A),
        ("_QGROUP_LIMIT_SET", 0x8030942B),
        ("_QUOTA_RESCAN_STATUS", 0x8040942D),
        ("_GET_SUBVOL_INFO", 0x81F8943C),
        ("_SNAP_DESTROY_V2", 0x5000943F),
    ],
)
def test_the_calls_have_the_numbers_of_the_kernel(name: str, number: int) -> None:
    """As strace knows them: the number holds the size of the argument, so a wrong layout shows."""
    assert getattr(btrfs, name) == number


def test_elsewhere_nothing_is_a_subvolume(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not btrfs.is_root_of_subvolume(fd)
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            btrfs.subvolume(fd)
    finally:
        os.close(fd)
    assert not btrfs.is_on_btrfs("/proc")


@pytest.mark.parametrize("name", ["", "a/b", "n" * 256])
def test_names_that_are_no_names_do_not_reach_the_kernel(tmp_path: Path, name: str) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            btrfs.create_subvolume(fd, name)
    finally:
        os.close(fd)


def test_a_plain_directory_is_not_removed_as_a_subvolume(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(NotADirectoryError):
            remove_subvolume(fd, "directory")
        assert remove_subvolume(fd, "missing") == []
    finally:
        os.close(fd)
    assert (tmp_path / "directory").is_dir()
