"""One file or directory of a container, as `docker cp` wants it."""

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from lamina.jsonvalue import JsonObject
from lamina.layers.rwtar import write_named
from lamina.rootfs import resource
from lamina.rootfs.view import View


@pytest.fixture
def view(tmp_path: Path):
    root = tmp_path / "root"
    (root / "etc" / "deep").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("root:x:0:0")
    (root / "etc" / "deep" / "leaf").write_text("leaf")
    (root / "link").symlink_to("/etc/deep")
    (root / "dangling").symlink_to("etc/../gone")
    (root / "outside").symlink_to("../../../../etc")
    os.utime(root / "etc" / "passwd", ns=(0, 1_500_000_000_123_456_789))
    fd = os.open(root, os.O_RDONLY)
    yield View(root, fd)
    os.close(fd)


def describe(view: View, path: str) -> JsonObject:
    found = resource.find(view, path)
    try:
        return resource.describe(view, found)
    finally:
        found.close()


def names(view: View, path: str) -> list[str]:
    out = io.BytesIO()
    found = resource.find(view, path)
    resource.write_archive(found, write_named, out)
    found.close()
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        return tar.getnames()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("etc", "/etc"), ("/etc/", "/etc/"), ("/etc/.", "/etc/."), ("/a/../etc/./x", "/etc/x"), ("/", "/"), (".", "/."),
        ("../..", "/"), ("/.", "/."), ("a/..", "/"), ("//etc//", "/etc/"),
    ],
)  # fmt: skip
def test_paths_are_cleaned_but_keep_their_end(path: str, expected: str) -> None:
    assert resource.absolute(path) == expected


def test_a_file_is_described(view: View) -> None:
    assert describe(view, "/etc/passwd") == {
        "name": "passwd",
        "size": 10,
        "mode": 0o644,
        "mtime": "2017-07-14T02:40:00.123456789Z",
        "linkTarget": "",
    }


def test_modes_are_gos() -> None:
    assert resource.go_mode(stat.S_IFDIR | stat.S_ISVTX | 0o777) == 1 << 31 | 1 << 20 | 0o777
    assert resource.go_mode(stat.S_IFREG | stat.S_ISUID | stat.S_ISGID | 0o755) == 1 << 23 | 1 << 22 | 0o755
    assert resource.go_mode(stat.S_IFCHR | 0o600) == 1 << 26 | 1 << 21 | 0o600


def test_a_symlink_is_told_with_where_it_leads(view: View) -> None:
    assert describe(view, "/link")["linkTarget"] == "/etc/deep"
    assert describe(view, "/dangling")["linkTarget"] == "/gone"
    assert describe(view, "/outside")["linkTarget"] == "/etc"
    assert describe(view, "/link/")["linkTarget"] == ""


def test_the_archive_begins_with_the_name_asked_for(view: View) -> None:
    assert names(view, "/etc/passwd") == ["passwd"]
    assert names(view, "/etc/deep") == ["deep", "deep/leaf"]
    assert names(view, "/etc/deep/.") == [".", "./leaf"]
    assert names(view, "/link") == ["link"]
    assert names(view, "/link/") == ["link", "link/leaf"]
    assert names(view, "/link/leaf") == ["leaf"]


def test_the_inside_of_the_root_is_archived_from_a_dot(view: View) -> None:
    assert names(view, ".")[:2] == [".", "./dangling"]


def test_the_root_itself_is_archived_from_a_slash(view: View) -> None:
    assert [name.strip("/") for name in names(view, "/")][:2] == ["", "dangling"]


@pytest.mark.parametrize("path", ["/absent", "/absent/x", "/dangling/x", "/dangling/"])
def test_what_is_absent_is_absent(view: View, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        resource.find(view, path)


@pytest.mark.parametrize("path", ["/etc/passwd/", "/etc/passwd/.", "/etc/passwd/x"])
def test_a_file_is_no_directory(view: View, path: str) -> None:
    with pytest.raises(NotADirectoryError):
        resource.find(view, path)
