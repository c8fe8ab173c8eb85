import os
from pathlib import Path

from lamina.layers.init import init_layer


def test_the_names_the_daemon_needs_are_made(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        init_layer(tmp_path)
    finally:
        os.umask(before)
    for name in ("dev/pts", "dev/shm", "proc", "sys", "etc"):
        assert (tmp_path / name).is_dir()
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o755
    for name in (".dockerenv", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/console"):
        assert (tmp_path / name).read_bytes() == b""
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o755
    assert os.readlink(tmp_path / "etc/mtab") == "/proc/mounts"


def test_links_and_files_give_way_directories_stay_and_nothing_is_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "hosts").write_text("host's own")
    (root / "etc").symlink_to(outside)
    (root / "proc").write_text("a file")
    (root / "dev").mkdir()
    (root / "dev/shm").mkdir()
    (root / "dev/shm/kept").write_text("x")
    (root / "dev/console").symlink_to(outside / "console")
    init_layer(root)
    assert not (root / "etc").is_symlink()
    assert (root / "etc/hosts").read_text() == ""
    assert (root / "proc").is_dir()
    assert (root / "dev/shm/kept").read_text() == "x"
    assert (root / "dev/console").is_file()
    assert not (root / "dev/console").is_symlink()
    assert sorted(os.listdir(outside)) == ["hosts"]
    assert (outside / "hosts").read_text() == "host's own"


def test_again_is_fine(tmp_path: Path) -> None:
    init_layer(tmp_path)
    init_layer(tmp_path)
    assert os.readlink(tmp_path / "etc/mtab") == "/proc/mounts"
