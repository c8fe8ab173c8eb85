"""aufs' layout on disk: what dockerd would find, and what a crash may leave. What layers show is the suite's subject."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.errors import CorruptRecord, InvalidArgument, LayerInUse
from lamina.ids import CacheId
from lamina.kernel.mounts import mount_table
from lamina.storage.aufs.driver import Aufs
from lamina.storage.aufs.probe import probe

pytestmark = pytest.mark.root

BASE, MIDDLE, TOP = CacheId("b" * 64), CacheId("c" * 64), CacheId("d" * 64 + "-init")


@pytest.fixture
def driver(tmp_path: Path) -> Aufs:
    return Aufs(tmp_path)


@pytest.fixture
def home(driver: Aufs, tmp_path: Path) -> Path:
    driver.create(BASE, None)
    driver.seal(BASE, durable=False)
    driver.create(MIDDLE, BASE)
    driver.seal(MIDDLE, durable=False)
    driver.create(TOP, MIDDLE)
    return tmp_path / "aufs"


def listing(home: Path) -> dict[str, list[str]]:
    return {part: sorted(os.listdir(home / part)) for part in ("diff", "layers", "mnt")}


class TestLayout:
    def test_it_is_dockers(self, home: Path) -> None:
        for part in ("", "mnt", "diff", "layers"):
            assert (home / part).stat().st_mode & 0o7777 == 0o710
        assert listing(home) == {part: sorted([BASE, MIDDLE, TOP]) for part in ("diff", "layers", "mnt")}
        for part in ("mnt", "diff"):
            assert (home / part / TOP).stat().st_mode & 0o7777 == 0o755
        assert (home / "layers" / BASE).read_bytes() == b""
        assert (home / "layers" / MIDDLE).read_text() == f"{BASE}\n"
        assert (home / "layers" / TOP).read_text() == f"{MIDDLE}\n{BASE}\n"

    def test_a_base_is_seen_where_its_changes_are(self, driver: Aufs, home: Path) -> None:
        assert driver.attach(BASE) == ()
        assert driver.tree(BASE) == home / "diff" / BASE
        assert driver.tree(TOP) == home / "mnt" / TOP

    def test_a_rebased_layer_names_all_layers_below(self, driver: Aufs, home: Path) -> None:
        driver.create(CacheId("early"), None)
        driver.rebase(CacheId("early"), MIDDLE)
        assert (home / "layers" / "early").read_text() == f"{MIDDLE}\n{BASE}\n"
        assert driver.lowers(CacheId("early")) == (home / "diff" / MIDDLE, home / "diff" / BASE)

    def test_removal_takes_all_three_away(self, driver: Aufs, home: Path) -> None:
        driver.remove(TOP)
        assert listing(home) == {part: sorted([BASE, MIDDLE]) for part in ("diff", "layers", "mnt")}

    def test_status_has_dockers_rows_and_says_which_union_is_in_use(self, driver: Aufs, home: Path) -> None:
        status = dict(driver.status())
        assert list(status) == ["Root Dir", "Backing Filesystem", "Dirs", "Dirperm1 Supported", "Union"]
        assert status["Root Dir"] == os.fspath(home)
        assert status["Dirs"] == "3"
        assert status["Union"].startswith(("kernel aufs", "lamina unionfs on FUSE (passthrough: "))

    def test_an_option_is_refused_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument, match=r"unknown option aufs\.size"):
            Aufs(tmp_path, {"aufs.size": "1G"})


class TestWhatDockerdLeft:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """A tree as dockerd writes it: no marks of ours, book-keeping of aufs, whiteouts as hard links of one inode."""
        home = tmp_path / "aufs"
        for part, names in (("mnt", (BASE, TOP)), ("diff", (BASE, TOP))):
            for name in names:
                (home / part / name).mkdir(parents=True)
        (home / "layers").mkdir()
        (home / "layers" / BASE).write_text("")
        (home / "layers" / TOP).write_text(f"{BASE}\n")
        own = home / "diff" / TOP
        for directory in (".wh..wh.orph", ".wh..wh.plnk"):
            (own / directory).mkdir(mode=0o700)
        (own / ".wh..wh.aufs").touch(0o444)
        os.link(own / ".wh..wh.aufs", own / ".wh.gone")
        return tmp_path

    def test_its_layers_are_found_and_can_be_sealed(self, root: Path) -> None:
        driver = Aufs(root)
        assert driver.cache_ids() == {BASE, TOP}
        driver.seal(BASE, durable=False)
        driver.seal(TOP, durable=False)
        driver.create(CacheId("new"), TOP)
        assert (root / "aufs/layers/new").read_text() == f"{TOP}\n{BASE}\n"

    def test_parents_of_its_layers_are_kept(self, root: Path) -> None:
        with pytest.raises(LayerInUse):
            Aufs(root).remove(BASE)

    def test_its_half_done_removals_are_finished(self, root: Path) -> None:
        for part in ("diff", "mnt"):
            (root / "aufs" / part / f"{MIDDLE}-removing/etc").mkdir(parents=True)
        assert Aufs(root).cache_ids() == {BASE, TOP}
        assert listing(root / "aufs") == {part: sorted([BASE, TOP]) for part in ("diff", "layers", "mnt")}


class TestLeftovers:
    def test_a_creation_cut_short_leaves_nothing(self, home: Path) -> None:
        (home / "mnt/half").mkdir()
        (home / "diff/half").mkdir()
        (home / "layers/.tmp-half").write_text("")
        driver = Aufs(home.parent)
        assert "half" not in driver.cache_ids()
        assert not any("half" in name for names in listing(home).values() for name in names)
        driver.create(CacheId("half"), BASE)

    def test_a_removal_cut_short_is_finished(self, driver: Aufs, home: Path) -> None:
        os.rename(home / "diff" / TOP, home / "diff" / f"{TOP}-removing")
        again = Aufs(home.parent)
        assert again.cache_ids() == {BASE, MIDDLE}
        assert listing(home) == {part: sorted([BASE, MIDDLE]) for part in ("diff", "layers", "mnt")}
        again.remove(MIDDLE)

    def test_changes_that_lost_their_record_are_not_thrown_away(self, home: Path) -> None:
        (home / "diff" / TOP / "data").write_bytes(b"mine")
        (home / "layers" / TOP).unlink()
        assert Aufs(home.parent).cache_ids() == {BASE, MIDDLE}
        assert (home / "diff" / TOP / "data").read_bytes() == b"mine"

    def test_a_lost_mount_point_is_made_again(self, home: Path) -> None:
        (home / "mnt" / TOP).rmdir()
        driver = Aufs(home.parent)
        assert driver.attach(TOP)
        assert (home / "mnt" / TOP).is_dir()

    def test_marks_of_layers_that_are_gone_go_too(self, home: Path) -> None:
        (home / "sealed/nobody").touch()
        Aufs(home.parent)
        assert sorted(os.listdir(home / "sealed")) == sorted([BASE, MIDDLE])


class TestDamage:
    def test_a_layer_whose_lower_layer_is_gone_says_so_and_can_be_removed(self, home: Path) -> None:
        os.rename(home / "diff" / BASE, home.parent / "elsewhere")
        driver = Aufs(home.parent)
        with pytest.raises(CorruptRecord, match=f"{TOP}.*the layer {BASE} below it is gone"):
            driver.attach(TOP)
        driver.remove(TOP)
        driver.remove(MIDDLE)
        assert driver.cache_ids() == frozenset()

    @pytest.mark.parametrize("text", ["../../etc\n", "a:b\n", "\0\n", "x=rw\n", "a" * 200 + "\n"])
    def test_a_record_that_makes_no_sense_is_never_mounted(self, home: Path, text: str) -> None:
        (home / "layers" / TOP).write_text(text)
        driver = Aufs(home.parent)
        with pytest.raises(CorruptRecord, match="as a layer below"):
            driver.attach(TOP)
        driver.remove(TOP)


def test_the_probe_leaves_nothing(tmp_path: Path) -> None:
    features = probe(tmp_path)
    assert os.listdir(tmp_path) == []
    assert not [entry for entry in mount_table() if Path(entry.target).is_relative_to(tmp_path)]
    assert features.kernel or "FUSE" in features.union
