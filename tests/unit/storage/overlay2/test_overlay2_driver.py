"""What only overlay2 has: dockerd's files, to the mode; what a crash does to them; the page of options."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lamina.errors import CorruptRecord, LayerInUse
from lamina.ids import CacheId
from lamina.kernel.mounts import mount, unmount
from lamina.storage.mounting import Mounts
from lamina.storage.overlay2.driver import Overlay2
from lamina.storage.overlay2.probe import probe

pytestmark = pytest.mark.root

BASE, CHILD, RW = CacheId("base"), CacheId("child"), CacheId("rw")


@pytest.fixture
def driver(tmp_path: Path) -> Overlay2:
    found = Overlay2(tmp_path)
    found.create(BASE, None)
    found.seal(BASE, durable=False)
    found.create(CHILD, BASE)
    return found


def layout(directory: Path) -> dict[str, str]:
    return {
        os.fspath(path.relative_to(directory)): stat.filemode(path.lstat().st_mode)
        for path in sorted(directory.rglob("*"))
    }


def test_the_layout_is_dockers(driver: Overlay2, tmp_path: Path) -> None:
    home = tmp_path / "overlay2"
    links = {name: (home / name / "link").read_text() for name in (BASE, CHILD)}
    assert stat.filemode(home.stat().st_mode) == "drwx--x---"
    assert layout(home) == {
        "l": "drwx------",
        f"l/{links[BASE]}": "lrwxrwxrwx",
        f"l/{links[CHILD]}": "lrwxrwxrwx",
        "base": "drwx--x---",
        "base/committed": "-rw-------",
        "base/diff": "drwxr-xr-x",
        "base/link": "-rw-r--r--",
        "child": "drwx--x---",
        "child/diff": "drwxr-xr-x",
        "child/link": "-rw-r--r--",
        "child/lower": "-rw-r--r--",
        "child/work": "drwx------",
    }
    assert (home / "child/lower").read_text() == f"l/{links[BASE]}"
    assert os.readlink(home / "l" / links[BASE]) == "../base/diff"
    assert (home / "base/committed").read_bytes() == b""


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        driver = Overlay2(tmp_path)
        driver.create(BASE, None)
    finally:
        os.umask(old)
    assert stat.filemode((tmp_path / "overlay2/base/diff").stat().st_mode) == "drwxr-xr-x"
    assert stat.filemode((tmp_path / "overlay2/base").stat().st_mode) == "drwx--x---"


def test_the_mount_is_dockers(driver: Overlay2, tmp_path: Path) -> None:
    home = tmp_path / "overlay2"
    link = (home / "base/link").read_text()
    (writable,) = driver.attach(CHILD)
    prefix = "index=off," if Path("/sys/module/overlay/parameters/index").exists() else ""
    assert writable.data == f"{prefix}lowerdir={home}/l/{link},upperdir={home}/child/diff,workdir={home}/child/work"
    assert (writable.fstype, writable.source, writable.flags, writable.cwd) == ("overlay", "overlay", 0, None)
    assert writable.target == home / "child/merged"
    driver.seal(CHILD, durable=False)
    (sealed,) = driver.attach(CHILD)
    assert sealed.data == f"{prefix}lowerdir={home}/child/diff:{home}/l/{link}"
    assert driver.attach(BASE) == ()
    assert driver.tree(BASE) == home / "base/diff"


def test_inspect_gets_dockers_four_directories(driver: Overlay2, tmp_path: Path) -> None:
    home = tmp_path / "overlay2"
    assert driver.describe(CHILD) == {
        "LowerDir": f"{home}/base/diff",
        "MergedDir": f"{home}/child/merged",
        "UpperDir": f"{home}/child/diff",
        "WorkDir": f"{home}/child/work",
    }
    assert list(driver.describe(BASE)) == ["MergedDir", "UpperDir", "WorkDir"]
    assert [name for name, _ in driver.status()] == [
        "Backing Filesystem",
        "Supports d_type",
        "Using metacopy",
        "Native Overlay Diff",
        "userxattr",
    ]


def test_options_longer_than_a_page_become_relative(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 30) / ("name" * 30)
    driver = Overlay2(root)
    parent: CacheId | None = None
    for number in range(20):
        driver.create(CacheId(f"l{number}"), parent)
        parent = CacheId(f"l{number}")
        (driver.upper(parent) / f"from-{number}").touch()
        driver.seal(parent, durable=False)
    driver.create(RW, parent)
    (wanted,) = driver.attach(RW)
    assert wanted.cwd == root / "overlay2"
    assert "lowerdir=l/" in wanted.data
    assert ",upperdir=rw/diff,workdir=rw/work" in wanted.data
    with Mounts(driver).mounted(RW) as tree:
        assert len(os.listdir(tree)) == 20


def test_a_root_whose_name_has_overlays_own_separators_works(tmp_path: Path) -> None:
    driver = Overlay2(tmp_path / "a,b:c\\d e")
    driver.create(BASE, None)
    (driver.upper(BASE) / "f").touch()
    driver.seal(BASE, durable=False)
    driver.create(RW, BASE)
    with Mounts(driver).mounted(RW) as tree:
        assert os.listdir(tree) == ["f"]


class TestAfterACrash:
    def test_an_empty_link_is_found_again_and_never_used_as_a_path(self, driver: Overlay2, tmp_path: Path) -> None:
        (tmp_path / "overlay2/child/link").write_text("")
        links = len(os.listdir(tmp_path / "overlay2/l"))
        Overlay2(tmp_path).remove(CHILD)
        assert len(os.listdir(tmp_path / "overlay2/l")) == links - 1
        assert os.path.isdir(tmp_path / "overlay2/l")

    def test_a_layer_without_any_link_is_removed_alone(self, driver: Overlay2, tmp_path: Path) -> None:
        link = (tmp_path / "overlay2/child/link").read_text()
        (tmp_path / "overlay2/child/link").unlink()
        (tmp_path / "overlay2/l" / link).unlink()
        again = Overlay2(tmp_path)
        again.seal(CHILD, durable=False)
        with pytest.raises(CorruptRecord):
            again.create(RW, CHILD)
        again.remove(CHILD)
        assert again.cache_ids() == {BASE}
        assert len(os.listdir(tmp_path / "overlay2/l")) == 1

    def test_a_half_written_lower_is_an_error_not_a_strange_mount(self, driver: Overlay2, tmp_path: Path) -> None:
        lower = tmp_path / "overlay2/child/lower"
        lower.write_text(lower.read_text()[:-3])
        again = Overlay2(tmp_path)
        with pytest.raises(CorruptRecord, match="lower is damaged"):
            again.attach(CHILD)
        again.remove(CHILD)
        assert again.cache_ids() == {BASE}

    def test_a_lower_layer_that_is_gone_is_named(self, driver: Overlay2, tmp_path: Path) -> None:
        (tmp_path / "overlay2/l" / (tmp_path / "overlay2/base/link").read_text()).unlink()
        with pytest.raises(CorruptRecord, match="child names a layer below it that is gone"):
            driver.lowers(CHILD)

    def test_directories_that_a_killed_probe_left_are_no_layers(self, driver: Overlay2, tmp_path: Path) -> None:
        for name in ("check-overlayfs-support123", "lamina-probe-x"):
            (tmp_path / "overlay2" / name).mkdir()
        assert Overlay2(tmp_path).cache_ids() == {BASE, CHILD}
        assert not (tmp_path / "overlay2/lamina-probe-x").exists(), "ours is ours to clean"
        assert (tmp_path / "overlay2/check-overlayfs-support123").exists(), "dockerd's is not"

    def test_short_names_of_layers_that_are_gone_are_dropped(self, driver: Overlay2, tmp_path: Path) -> None:
        links = tmp_path / "overlay2/l"
        before = set(os.listdir(links))
        (links / ("Z" * 26)).symlink_to("../gone/diff")
        (links / "strange").symlink_to("/elsewhere")
        (links / "file").touch()
        Overlay2(tmp_path)
        assert set(os.listdir(links)) == {*before, "strange", "file"}

    def test_a_layer_made_behind_our_back_is_found(self, driver: Overlay2, tmp_path: Path) -> None:
        Overlay2(tmp_path).create(RW, BASE)
        assert driver.upper(RW).is_dir()
        driver.remove(CHILD)
        with pytest.raises(LayerInUse):
            driver.remove(BASE)


class TestProbe:
    def test_it_leaves_nothing_and_finds_whole_uppers(self, tmp_path: Path) -> None:
        found = probe(tmp_path)
        assert found.native_diff
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("defaults", ["redirect_dir=on,", "redirect_dir=on,metacopy=on,"])
    def test_kernel_defaults_that_split_a_layer_are_turned_off(self, tmp_path: Path, defaults: str) -> None:
        found = probe(tmp_path, kernel_defaults=defaults)
        assert found.native_diff
        assert not found.metacopy
        assert found.options.endswith("redirect_dir=off,metacopy=off,")
        assert os.listdir(tmp_path) == []


def test_a_mount_in_use_is_detached_and_its_directory_goes(driver: Overlay2) -> None:
    (wanted,) = driver.attach(CHILD)
    mount(wanted)
    with (wanted.target / "f").open("wb") as file:
        unmount(wanted.target, detach=True)
        driver.detach(CHILD)
        file.write(b"still open")
    assert (driver.upper(CHILD) / "f").read_bytes() == b"still open"
    assert not wanted.target.exists()
