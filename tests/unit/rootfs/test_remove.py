from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lamina.kernel.mounts import bind, is_mountpoint, unmount
from lamina.rootfs.remove import empty_directory, remove_tree


def test_everything_goes(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/f").write_text("x")
    os.mkfifo(top / "a/b/fifo")
    (top / os.fsdecode(b"\xff")).touch()
    (top / "a/closed").mkdir(0o000)
    remove_tree(top)
    assert os.listdir(tmp_path) == []


def test_what_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_tree(tmp_path / "missing")
    remove_tree(tmp_path / "missing/deeper")


def test_symlinks_are_removed_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/f").touch()
    (tmp_path / "top").mkdir()
    (tmp_path / "top/l").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to("kept")
    remove_tree(tmp_path / "top")
    remove_tree(tmp_path / "link")
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["f"]


def test_a_single_file_goes(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    remove_tree(tmp_path / "f")
    assert os.listdir(tmp_path) == []


def test_a_tree_deeper_than_any_path_goes(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    fd = os.open(tmp_path / "top", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("dddddddddd", dir_fd=fd)
        inner = os.open("dddddddddd", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    remove_tree(tmp_path / "top")
    assert os.listdir(tmp_path) == []


def test_files_that_appear_meanwhile_go_too(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for number in range(500):
        (top / f"d{number}").mkdir()
        (top / f"d{number}/f").touch()
    started = threading.Event()

    def write() -> None:
        for number in range(500):
            try:
                (top / f"d{number}/late").touch()
            except FileNotFoundError:
                continue
            finally:
                started.set()

    writer = threading.Thread(target=write)
    writer.start()
    started.wait(10)
    remove_tree(top)
    writer.join()
    remove_tree(top)
    assert os.listdir(tmp_path) == []


def test_a_directory_can_be_emptied(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "f").touch()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        empty_directory(fd)
    finally:
        os.close(fd)
    assert os.listdir(tmp_path) == []


@pytest.mark.root
class TestMountsInside:
    def test_a_mounted_directory_of_the_host_is_detached_and_keeps_its_files(self, tmp_path: Path) -> None:
        host, top = tmp_path / "host", tmp_path / "top"
        host.mkdir()
        (host / "precious").touch()
        (top / "a/mnt").mkdir(parents=True)
        bind(host, top / "a/mnt")
        try:
            remove_tree(top)
        finally:
            if is_mountpoint(top / "a/mnt"):
                unmount(top / "a/mnt", detach=True)
        assert os.listdir(host) == ["precious"]
        assert not top.exists()

    def test_a_mounted_file_of_the_host_is_detached(self, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("x")
        (tmp_path / "top").mkdir()
        (tmp_path / "top/f").touch()
        bind(tmp_path / "precious", tmp_path / "top/f")
        try:
            remove_tree(tmp_path / "top")
        finally:
            if is_mountpoint(tmp_path / "top/f"):
                unmount(tmp_path / "top/f", detach=True)
        assert (tmp_path / "precious").read_text() == "x"
        assert not (tmp_path / "top").exists()
