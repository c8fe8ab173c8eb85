"""A container's root with its volumes and binds in place."""

import os
from pathlib import Path

import pytest

from lamina.kernel.mounts import mount_table
from lamina.rootfs.view import Bind, View, in_view

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "root"
    (found / "data").mkdir(parents=True)
    (found / "etc").mkdir()
    (found / "etc" / "hosts").write_text("image")
    return found


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    found = tmp_path / "volume"
    found.mkdir()
    (found / "file").write_text("volume")
    return found


def read(view: View, name: str) -> str:
    fd = view.open(name, os.O_RDONLY)
    with os.fdopen(fd) as file:
        return file.read()


def test_binds_are_seen_and_the_host_sees_none_of_it(root: Path, volume: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("own")
    binds = [Bind(volume, "/data", read_only=False), Bind(hosts, "/etc/hosts", read_only=False)]
    assert in_view(root, binds, lambda view: read(view, "/data/file") + read(view, "/etc/hosts")) == "volumeown"
    assert not [entry for entry in mount_table() if entry.target.startswith(str(tmp_path))]
    assert os.listdir(root / "data") == []


def test_a_bind_below_another_is_mounted_after_it(root: Path, volume: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "deep").write_text("inner")
    binds = [Bind(tmp_path / "inner", "/data/sub", read_only=False), Bind(volume, "/data", read_only=False)]
    assert in_view(root, binds, lambda view: read(view, "/data/sub/deep")) == "inner"
    assert (volume / "sub").is_dir()


def test_writes_go_to_what_is_mounted(root: Path, volume: Path) -> None:
    def write(view: View) -> None:
        os.close(view.open("/data/new", os.O_WRONLY | os.O_CREAT))

    in_view(root, [Bind(volume, "/data", read_only=False)], write)
    assert (volume / "new").exists()
    with pytest.raises(OSError, match="Read-only file system"):
        in_view(root, [Bind(volume, "/data", read_only=True)], write)
    in_view(root, [Bind(volume, "/data", read_only=False)], write, read_only=True)


def test_a_read_only_root_refuses_writes(root: Path) -> None:
    with pytest.raises(OSError, match="Read-only file system"):
        in_view(root, [], lambda view: view.open("/new", os.O_WRONLY | os.O_CREAT), read_only=True)


def test_a_missing_mount_point_is_made(root: Path, volume: Path) -> None:
    binds = [Bind(volume, "/made/here", read_only=False), Bind(volume / "file", "/made/too", read_only=False)]
    assert in_view(root, binds, lambda view: read(view, "/made/here/file") + read(view, "/made/too")) == "volumevolume"


def test_a_mount_point_behind_symlinks_stays_inside(root: Path, volume: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (root / "evil").symlink_to(tmp_path / "outside")
    (root / "var").mkdir()
    (root / "var" / "run").symlink_to("/data")
    binds = [Bind(volume, "/evil", read_only=False), Bind(volume, "/var/run", read_only=False)]
    assert in_view(root, binds, lambda view: read(view, "/data/file")) == "volume"
    assert os.listdir(tmp_path / "outside") == []


def test_it_is_told_which_bind_a_file_lies_on(root: Path, volume: Path) -> None:
    wanted = Bind(volume, "/data", read_only=True)

    def look(view: View) -> list[Bind | None]:
        fds = [view.open(name, os.O_PATH) for name in ("/data/file", "/etc")]
        found = [view.bind_of(fd) for fd in fds]
        for fd in fds:
            os.close(fd)
        return found

    assert in_view(root, [wanted], look) == [wanted, None]


def test_names_inside_are_told_without_the_host_path(root: Path) -> None:
    (root / ".hidden").mkdir()

    def look(view: View) -> list[str]:
        fds = [view.open(name, os.O_PATH) for name in ("/", "/etc/hosts", "/.hidden")]
        found = [view.inside(fd) for fd in fds]
        for fd in fds:
            os.close(fd)
        return found

    assert in_view(root, [], look) == ["/", "/etc/hosts", "/.hidden"]


def test_an_error_of_the_work_is_raised_here(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        in_view(root, [], lambda view: view.open("/absent", os.O_RDONLY))
