from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lamina.kernel.mounts import (
    Mount,
    bind,
    is_mountpoint,
    mount,
    mount_table,
    parse_mount_table,
    set_propagation,
    unmount,
)


def test_the_mount_table_is_decoded() -> None:
    text = (
        b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/ro\\134ot rw,errors=continue\n"
        b"37 36 0:5 / /plain ro - tmpfs none rw\n"
        b"broken line\n"
    )
    first, second = parse_mount_table(text)
    assert (first.mount_id, first.parent_id, first.major, first.minor) == (36, 35, 98, 0)
    assert (first.root, first.target, first.source) == ("/mnt1", "/mnt 2", "/dev/ro\\ot")
    assert first.optional == ("master:1", "shared:7")
    assert (second.optional, second.options, second.super_options) == ((), "ro", "rw")


def test_this_machine_has_a_root_mount() -> None:
    assert any(entry.target == "/" for entry in mount_table())


def test_what_is_no_mount_point(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("/proc")
    for name in ("d", "l", "missing", "missing/deeper"):
        assert not is_mountpoint(tmp_path / name)
    assert is_mountpoint(Path("/proc"))
    assert is_mountpoint(Path("/"))


@pytest.mark.root
class TestMounting:
    def test_a_file_system_comes_and_goes(self, tmp_path: Path) -> None:
        mount(Mount("tmpfs", "tmpfs", tmp_path, data="size=64k"))
        try:
            assert is_mountpoint(tmp_path)
            assert [entry.fstype for entry in mount_table() if entry.target == os.fspath(tmp_path)] == ["tmpfs"]
        finally:
            unmount(tmp_path)
        assert not is_mountpoint(tmp_path)

    def test_binds_are_mount_points_and_can_be_read_only(self, tmp_path: Path) -> None:
        for name in ("source", "target"):
            (tmp_path / name).mkdir()
        bind(tmp_path / "source", tmp_path / "target", read_only=True)
        try:
            assert is_mountpoint(tmp_path / "target")
            with pytest.raises(OSError, match="Read-only"):
                (tmp_path / "target/f").touch()
            set_propagation(tmp_path / "target", "private")
        finally:
            unmount(tmp_path / "target", detach=True)
        (tmp_path / "target/f").touch()

    def test_a_relative_mount_leaves_everybodys_working_directory_alone(self, tmp_path: Path) -> None:
        for name in ("low", "up", "work", "merged"):
            (tmp_path / name).mkdir()
        (tmp_path / "low/f").touch()
        before, threads = os.getcwd(), threading.active_count()
        mount(
            Mount("overlay", "overlay", tmp_path / "merged", data="lowerdir=low,upperdir=up,workdir=work", cwd=tmp_path)
        )
        try:
            assert os.listdir(tmp_path / "merged") == ["f"]
        finally:
            unmount(tmp_path / "merged")
        assert (os.getcwd(), threading.active_count()) == (before, threads)

    def test_failures_name_the_target(self, tmp_path: Path) -> None:
        for cwd in (None, tmp_path):
            with pytest.raises(OSError, match="No such device") as caught:
                mount(Mount("no-such-fs", "none", tmp_path, cwd=cwd))
            assert caught.value.filename == os.fspath(tmp_path)

    def test_options_that_the_kernel_would_cut_off_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="mount options exceed 4095 bytes"):
            mount(Mount("tmpfs", "tmpfs", tmp_path, data="size=64k," * 500))
        assert not is_mountpoint(tmp_path)

    def test_unmounting_does_not_follow_a_symlink(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "l").symlink_to("d")
        mount(Mount("tmpfs", "tmpfs", tmp_path / "d"))
        try:
            with pytest.raises(OSError, match="Invalid argument"):
                unmount(tmp_path / "l")
            assert is_mountpoint(tmp_path / "d")
        finally:
            unmount(tmp_path / "d")
