from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from lamina.kernel import durable
from lamina.kernel.durable import fsync_dir, make_dirs, sync_filesystem, write_file, write_file_lazy


@pytest.mark.parametrize("write", [write_file, write_file_lazy])
class TestWriting:
    def test_content_and_mode_are_exact(self, write, tmp_path: Path) -> None:
        old = os.umask(0o077)
        try:
            write(tmp_path / "f", b"new", 0o644)
        finally:
            os.umask(old)
        assert (tmp_path / "f").read_bytes() == b"new"
        assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o644

    def test_a_file_is_replaced_not_written_into(self, write, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"old and longer")
        with (tmp_path / "f").open("rb") as reader:
            write(tmp_path / "f", b"new")
            assert reader.read() == b"old and longer"
        assert (tmp_path / "f").read_bytes() == b"new"

    def test_nothing_else_is_left(self, write, tmp_path: Path) -> None:
        write(tmp_path / "f", b"x" * 3_000_000)
        assert os.listdir(tmp_path) == ["f"]

    def test_a_failure_leaves_the_old_content_and_no_temporary_file(self, write, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        with pytest.raises(IsADirectoryError):
            write(tmp_path / "d", b"new")
        assert os.listdir(tmp_path) == ["d"]

    def test_a_long_name_fits(self, write, tmp_path: Path) -> None:
        write(tmp_path / ("n" * 230), b"x")
        assert os.listdir(tmp_path) == ["n" * 230]


def test_made_directories_have_the_mode_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        make_dirs(tmp_path / "a/b/c", 0o711)
        make_dirs(tmp_path / "a/b/c", 0o700)
    finally:
        os.umask(old)
    assert [(tmp_path / name).stat().st_mode & 0o7777 for name in ("a", "a/b", "a/b/c")] == [0o711] * 3


def test_a_file_in_the_way_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(FileExistsError):
        make_dirs(tmp_path / "f")


def test_syncing_what_is_not_there(tmp_path: Path) -> None:
    for sync in (fsync_dir, sync_filesystem):
        sync(tmp_path)
        with pytest.raises(FileNotFoundError):
            sync(tmp_path / "missing")


def test_an_ordered_file_is_the_new_one_at_once_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "record"
    for content in (b"old", b"new and longer", b""):
        durable.write_file_ordered(path, content, 0o640)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o7777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


def test_beginning_to_write_is_fine_on_any_file_system_that_holds_files(tmp_path: Path) -> None:
    for directory in (tmp_path, Path("/dev/shm")):
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"content")
            file.flush()
            durable.begin_writing(file.fileno())
            file.seek(0)
            assert file.read() == b"content"
