"""Namespaces kept by a file."""

import os
from pathlib import Path

import pytest

from lamina.kernel.mounts import is_mountpoint
from lamina.kernel.namespaces import hold_new_network_namespace, in_network_namespace, release_namespace

pytestmark = pytest.mark.root
OWN = "/proc/thread-self/ns/net"


def test_a_namespace_lives_until_its_file_is_released(tmp_path: Path) -> None:
    path = tmp_path / "ns"
    made = hold_new_network_namespace(path, lambda fd: os.fstat(fd).st_ino)
    assert path.stat().st_ino == made
    assert os.stat(OWN).st_ino != made
    fd = os.open(path, os.O_RDONLY)
    assert in_network_namespace(fd, lambda: os.stat(OWN).st_ino) == made
    os.close(fd)
    release_namespace(path)
    release_namespace(path)
    assert not path.exists()


def test_a_failed_configuration_leaves_nothing(tmp_path: Path) -> None:
    def fail(_: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        hold_new_network_namespace(tmp_path / "ns", fail)
    assert not (tmp_path / "ns").exists()


def test_a_taken_path_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "ns").write_text("x")
    with pytest.raises(FileExistsError):
        hold_new_network_namespace(tmp_path / "ns", lambda _: None)
    assert (tmp_path / "ns").read_text() == "x"


def test_a_file_that_a_reboot_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "ns").touch()
    release_namespace(tmp_path / "ns")
    assert not (tmp_path / "ns").exists()


def test_a_symlink_is_removed_and_its_target_stays_mounted(tmp_path: Path) -> None:
    hold_new_network_namespace(tmp_path / "ns", lambda _: None)
    (tmp_path / "link").symlink_to(tmp_path / "ns")
    release_namespace(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert is_mountpoint(tmp_path / "ns")
    release_namespace(tmp_path / "ns")
