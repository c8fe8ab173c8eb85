import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import UnsafeArchive
from lamina.rootfs.directories import Directories


@pytest.fixture
def made() -> list[bytes]:
    return []


@pytest.fixture
def directories(tmp_path: Path, made: list[bytes]) -> Iterator[Directories]:
    (tmp_path / "root").mkdir()
    opened = Directories(tmp_path / "root", None, made.append)
    yield opened
    opened.close()
    opened.close()


def same(fd: int, path: Path) -> bool:
    return os.fstat(fd).st_ino == path.stat().st_ino


def test_missing_directories_are_made_and_told(directories: Directories, made: list[bytes], tmp_path: Path) -> None:
    fd = directories.open(b"a/b/c")
    assert same(fd, tmp_path / "root/a/b/c")
    assert made == [b"a", b"a/b", b"a/b/c"]
    assert stat.S_IMODE((tmp_path / "root/a/b").stat().st_mode) == 0o755
    assert directories.open(b"a/b/c") == fd
    assert same(directories.open(b""), tmp_path / "root")


def test_a_missing_directory_may_be_an_error(directories: Directories, tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive, match="no directory 'a'"):
        directories.open(b"a/b", make=False)
    assert os.listdir(tmp_path / "root") == []


@pytest.mark.parametrize("target", ["..", "/..", "../../..", "{outside}"])
def test_symlinks_are_followed_inside_the_root_only(directories: Directories, tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "root/link").symlink_to(target.format(outside=tmp_path / "outside"))
    try:
        fd = directories.open(b"link")
    except UnsafeArchive:
        return
    assert same(fd, tmp_path / "root")


def test_what_is_kept_is_forgotten_on_demand(directories: Directories, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    directories.open(b"a/b")
    (tmp_path / "root/a").rename(tmp_path / "root/old")
    directories.forget()
    assert len(os.listdir("/proc/self/fd")) == before
    assert same(directories.open(b"a/b"), tmp_path / "root/a/b")


def test_many_directories_need_a_bounded_number_of_descriptors(directories: Directories) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1000):
        directories.open(b"d%d/e" % number)
        assert len(os.listdir("/proc/self/fd")) < before + 410


def test_a_directory_that_gives_its_group_is_known(directories: Directories, tmp_path: Path) -> None:
    (tmp_path / "root/s").mkdir()
    (tmp_path / "root/s").chmod(0o2755)
    assert directories.gives_group(directories.open(b"s"))
    assert not directories.gives_group(directories.open(b"t"))
