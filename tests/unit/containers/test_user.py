import os

import pytest

from lamina.containers.user import MAX_FILE_BYTES, resolve_user
from lamina.errors import InvalidArgument


@pytest.fixture
def rootfs(tmp_path):
    (tmp_path / "etc").mkdir()
    return tmp_path


def test_the_files_are_the_containers_own(rootfs):
    (rootfs / "etc" / "passwd").write_text("me:x:7:8::/home/me:\n")
    assert resolve_user(rootfs, "me").uid == 7


def test_links_stay_inside_the_root(rootfs):
    (rootfs / "etc" / "passwd").symlink_to("/etc/../../../data")
    (rootfs / "data").write_text("me:x:7:8::/:\n")
    assert resolve_user(rootfs, "me").uid == 7


def test_without_files_only_numbers_work(tmp_path):
    assert resolve_user(tmp_path, "5").uid == 5
    with pytest.raises(InvalidArgument):
        resolve_user(tmp_path, "root")


def test_a_fifo_in_place_of_the_file_does_not_hang(rootfs):
    os.mkfifo(rootfs / "etc" / "passwd")
    assert resolve_user(rootfs, "5").uid == 5


def test_a_huge_file_is_refused(rootfs):
    with (rootfs / "etc" / "group").open("wb") as file:
        file.truncate(MAX_FILE_BYTES * 100)
    with pytest.raises(InvalidArgument, match="larger than"):
        resolve_user(rootfs, "5")
