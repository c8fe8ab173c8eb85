"""Changes told by a directory in aufs' dialect alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.changeset.whiteout import WhiteoutDialect
from lamina.rootfs.own_changes import own_changes

WHEN = (1_600_000_000, 1_600_000_000)


def fill(directory: Path, *names: str) -> Path:
    """Files by name; a name that ends in `/` is a directory."""
    directory.mkdir(exist_ok=True)
    for name in names:
        place = directory / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
        os.utime(place, WHEN)
    return directory


def told(upper: Path, *lowers: Path) -> list[str]:
    return [f"{one.kind.letter} {one.path}" for one in own_changes(upper, WhiteoutDialect.AUFS, lowers)]


@pytest.fixture
def low(tmp_path: Path) -> Path:
    return fill(tmp_path / "low", "etc/hosts", "etc/passwd", "var/log/a", "var/log/b", "top")


def test_a_new_name_is_added_and_its_directory_modified(tmp_path: Path, low: Path) -> None:
    assert told(fill(tmp_path / "up", "etc/new"), low) == ["C /etc", "A /etc/new"]


def test_a_file_of_the_same_kind_size_and_time_is_no_change(tmp_path: Path, low: Path) -> None:
    assert told(fill(tmp_path / "up", "etc/hosts"), low) == []


def test_a_file_that_differs_is_modified(tmp_path: Path, low: Path) -> None:
    up = fill(tmp_path / "up", "top")
    (up / "top").write_bytes(b"more")
    assert told(up, low) == ["C /top"]


def test_a_whiteout_deletes_what_is_below_and_nothing_else(tmp_path: Path, low: Path) -> None:
    assert told(fill(tmp_path / "up", "etc/.wh.hosts", ".wh.never", ".wh.var"), low) == [
        "C /etc",
        "D /etc/hosts",
        "D /var",
    ]


def test_a_name_that_is_already_gone_below_is_not_deleted_again(tmp_path: Path, low: Path) -> None:
    middle = fill(tmp_path / "middle", "etc/.wh.hosts", "var/.wh..wh..opq")
    assert told(fill(tmp_path / "up", "etc/.wh.hosts", "var/.wh.log"), middle, low) == []


def test_an_opaque_directory_deletes_what_it_hides(tmp_path: Path, low: Path) -> None:
    up = fill(tmp_path / "up", "var/log/.wh..wh..opq", "var/log/b", "var/log/c")
    assert told(up, low) == ["C /var", "C /var/log", "D /var/log/a", "A /var/log/c"]


def test_a_directory_in_the_place_of_a_file_is_modified_and_its_content_new(tmp_path: Path, low: Path) -> None:
    assert told(fill(tmp_path / "up", "top/.wh..wh..opq", "top/in"), low) == ["C /top", "A /top/in"]


def test_a_name_comes_back_over_a_whiteout_in_the_middle(tmp_path: Path, low: Path) -> None:
    middle = fill(tmp_path / "middle", "etc/.wh.hosts")
    assert told(fill(tmp_path / "up", "etc/hosts"), middle, low) == ["C /etc", "A /etc/hosts"]


def test_the_book_keeping_of_aufs_is_no_change(tmp_path: Path, low: Path) -> None:
    up = fill(tmp_path / "up", ".wh..wh.aufs", ".wh..wh.orph/1", ".wh..wh.plnk/2", "etc/.wh..wh.0001")
    assert told(up, low) == []


def test_on_nothing_everything_is_added(tmp_path: Path) -> None:
    assert told(fill(tmp_path / "up", "d/f", "d/.wh.x")) == ["A /d", "A /d/f"]


def test_a_whole_tree_is_no_directory_of_own_changes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="NONE"):
        own_changes(tmp_path, WhiteoutDialect.NONE, ())
