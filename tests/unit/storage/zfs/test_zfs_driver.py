"""What is the zfs driver's own: names and properties, what holds a dataset, what a crash or an administrator leaves."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina.errors import AlreadyExists, Conflict, InvalidArgument, LayerInUse, NoSuchLayer, StorageFull, Unsupported
from lamina.ids import CacheId
from lamina.kernel import zfs
from lamina.kernel.mounts import Mount, mount, unmount
from lamina.rootfs.diff import changes
from lamina.storage.mounting import Mounts
from lamina.storage.zfs.datasets import BETWEEN_MARK
from lamina.storage.zfs.driver import Zfs
from tests.conformance.grounds_zfs import command, destroy_pool, make_pool, zfs_dataset

pytestmark = [pytest.mark.root, pytest.mark.vm_guest("zfs")]

BASE, CHILD, OTHER = CacheId("base"), CacheId("child"), CacheId("other")
HEX = CacheId("0123456789abcdef" * 4)

_pools = itertools.count(1)


class Store:
    """A driver on a data root that is a dataset of its own, as Docker's is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parent = command("zfs", "list", "-Ho", "name", os.fspath(root)).strip()
        self.driver = Zfs(root)

    def reopen(self, *, after_kill: bool = False) -> Zfs:
        if not after_kill:
            self.driver.close()
        self.driver = Zfs(self.root)
        return self.driver

    def dataset(self, name: str) -> str:
        return f"{self.parent}/{name}"

    def layer(self, name: CacheId, parent: CacheId | None = None, *, sealed: bool = False) -> None:
        self.driver.create(name, parent)
        self.write(name, f"of-{name}"[:60])
        if sealed:
            self.driver.seal(name, durable=False)

    def write(self, name: CacheId, file: str, data: bytes = b"x") -> None:
        with Mounts(self.driver).mounted(name) as tree:
            (tree / file).write_bytes(data)

    def fill(self, name: CacheId, *, files: int) -> None:
        """A mebibyte each; every one is on the disk before the next, for a quota looks at what is."""
        for number in range(files):
            self.write(name, f"f{number}", os.urandom(1 << 20))
            zfs.sync(self.parent.partition("/")[0])

    def shows(self, name: CacheId) -> set[str]:
        with Mounts(self.driver).mounted(name) as tree:
            return set(os.listdir(tree))

    def below(self, *kinds: str) -> set[str]:
        """The datasets and snapshots below the parent, by their names from there on."""
        listed = command("zfs", "list", "-rHo", "name", "-t", ",".join(kinds or ("all",)), self.parent)
        return {name.removeprefix(self.parent).lstrip("/") for name in listed.split("\n")} - {""}

    def snapshots(self) -> set[str]:
        return self.below("snapshot")

    def get(self, name: str, of: str) -> str:
        return command("zfs", "get", "-Hpo", "value", name, of).strip()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with zfs_dataset(tmp_path / "root") as root:
        made = Store(root)
        yield made
        made.driver.close()


@contextmanager
def a_pool(tmp_path: Path, *, size_bytes: int) -> Iterator[str]:
    name, image = f"lamina-own-{next(_pools)}-{os.getpid()}", tmp_path / "own-disk"
    make_pool(name, image, size_bytes=size_bytes)
    try:
        yield name
    finally:
        destroy_pool(name, image)


@contextmanager
def mounted_elsewhere(dataset: str, place: Path) -> Iterator[None]:
    place.mkdir()
    mount(Mount("zfs", dataset, place))
    try:
        yield
    finally:
        unmount(place)


class TestLayout:
    def test_names_and_properties_are_dockers(self, store: Store) -> None:
        store.layer(HEX, sealed=True)
        store.layer(CacheId(f"{HEX}-init"), HEX, sealed=True)
        store.layer(CHILD, CacheId(f"{HEX}-init"))
        assert store.below("filesystem") == {HEX, f"{HEX}-init", "child"}
        snapshots = {full.partition("@")[0]: full.partition("@")[2] for full in store.snapshots()}
        assert set(snapshots) == {HEX, f"{HEX}-init"}
        assert all(name.isdecimal() and int(name) < 10**9 for name in snapshots.values())
        assert store.get("origin", store.dataset("child")) == store.dataset(f"{HEX}-init@{snapshots[f'{HEX}-init']}")
        local = command("zfs", "get", "-Hpo", "property,value", "-s", "local", "all", store.dataset("child"))
        assert set(local.split("\n")) == {"mountpoint\tlegacy", "org.lamina:layer\t1", ""}

    def test_a_mounted_layer_is_seen_in_graph_and_nothing_stays_there(self, store: Store) -> None:
        store.layer(BASE)
        graph = store.root / "zfs/graph"
        with Mounts(store.driver).mounted(BASE) as tree:
            assert tree == graph / "base"
            assert oct(graph.stat().st_mode & 0o7777) == "0o755"
        assert os.listdir(graph) == []
        assert oct((store.root / "zfs").stat().st_mode & 0o7777) == "0o710"
        described = {"Dataset": store.dataset("base"), "Mountpoint": os.fspath(graph / "base")}
        assert store.driver.describe(BASE) == described

    def test_info_shows_dockers_rows(self, store: Store) -> None:
        command("zfs", "set", "quota=1G", store.parent)
        rows = dict(store.driver.status())
        assert list(rows) == [
            "Zpool",
            "Zpool Health",
            "Parent Dataset",
            "Space Used By Parent",
            "Space Available",
            "Parent Quota",
            "Compression",
        ]
        assert rows["Zpool Health"] == "ONLINE"
        assert rows["Parent Dataset"] == store.parent
        assert rows["Parent Quota"] == str(1 << 30)
        assert rows["Compression"] == store.get("compression", store.parent)
        assert int(rows["Space Available"]) <= 1 << 30

    def test_children_share_one_snapshot_which_goes_with_the_last_of_them(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        store.layer(CHILD, BASE)
        store.layer(OTHER, BASE)
        assert len(store.snapshots()) == 1
        store.driver.close()
        (snapshot,) = store.snapshots()
        assert store.get("defer_destroy", store.dataset(snapshot)) == "on"
        store.reopen()
        store.driver.remove(CHILD)
        assert store.snapshots() == {snapshot}
        store.driver.remove(OTHER)
        assert store.snapshots() == set()

    def test_a_parent_goes_together_with_its_snapshot(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        store.layer(CHILD, BASE)
        store.driver.remove(CHILD)
        store.driver.remove(BASE)
        assert store.below() == set()

    def test_usage_is_told_while_a_container_runs_on_the_layer(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        store.layer(CHILD, BASE)
        store.write(CHILD, "more", b"m" * 1000)
        mounts = Mounts(store.driver)
        with mounts.mounted(CHILD), mounts.mounted(BASE):
            assert store.driver.usage(CHILD).size_bytes == 1001


class TestChanges:
    def test_what_was_not_written_need_not_be_looked_at(self, store: Store) -> None:
        store.driver.create(BASE, None)
        with Mounts(store.driver).mounted(BASE) as tree:
            for number in range(20):
                (tree / f"d{number}").mkdir()
                for file in range(50):
                    (tree / f"d{number}/f{file}").touch()
            numbers = {name: (tree / name).stat().st_ino for name in ("d3", "d3/f5", "d17", "d17/f5")}
        store.driver.seal(BASE)
        store.driver.create(CHILD, BASE)
        store.write(CHILD, "d3/f5")
        with Mounts(store.driver).mounted(CHILD):
            touched = store.driver.touched(CHILD, BASE)
        assert touched is not None
        assert touched.above is not None
        assert numbers["d3/f5"] in touched.inodes
        assert numbers["d3"] in touched.above
        assert numbers["d17/f5"] not in touched.inodes
        assert not touched.may_differ_below(numbers["d17"])
        assert len(store.snapshots()) == 1, "the question leaves no snapshot"
        assert store.driver.usage(CHILD).size_bytes == 1

    def test_a_file_of_two_names_is_looked_for_everywhere(self, store: Store) -> None:
        store.driver.create(BASE, None)
        with Mounts(store.driver).mounted(BASE) as tree:
            for name in ("one", "two"):
                (tree / name).mkdir()
            (tree / "one/f").touch()
            os.link(tree / "one/f", tree / "two/f")
        store.driver.seal(BASE)
        store.driver.create(CHILD, BASE)
        store.write(CHILD, "one/f", b"both")
        touched = store.driver.touched(CHILD, BASE)
        assert touched is not None
        assert touched.above is None
        with Mounts(store.driver).mounted(CHILD) as new, Mounts(store.driver).mounted(BASE) as old:
            assert {change.path for change in changes(new, old, touched)} == {"/one", "/one/f", "/two", "/two/f"}

    def test_nothing_is_known_of_layers_that_are_not_parent_and_child(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        store.layer(OTHER, sealed=True)
        store.layer(CHILD, BASE)
        assert store.driver.touched(CHILD, OTHER) is None

    def test_a_snapshot_that_a_killed_question_left_is_removed(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        store.layer(CHILD, BASE)
        zfs.snapshot(store.dataset("child@7"), {BETWEEN_MARK: "1"})
        store.reopen(after_kill=True)
        assert not {name for name in store.snapshots() if name.startswith("child@")}


class TestLimits:
    def test_a_limit_is_docker_s_quota(self, store: Store) -> None:
        store.layer(BASE)
        store.driver.limit_size(BASE, 8 << 20)
        assert store.get("quota", store.dataset("base")) == str(8 << 20)
        with pytest.raises(OSError, match=r"quota|No space"):
            store.fill(BASE, files=20)

    def test_a_limit_below_what_is_used_is_refused(self, store: Store) -> None:
        store.layer(BASE)
        store.write(BASE, "f", os.urandom(2 << 20))
        store.driver.seal(BASE)
        with pytest.raises(InvalidArgument, match="layer base cannot be limited to 1048576 bytes"):
            store.driver.limit_size(BASE, 1 << 20)


class TestWhatHolds:
    def test_a_held_snapshot_keeps_the_data_until_it_is_released(self, store: Store) -> None:
        store.layer(BASE)
        kept = store.dataset("base@backup")
        command("zfs", "snapshot", kept)
        command("zfs", "hold", "mine", kept)
        store.driver.remove(BASE)
        assert store.driver.cache_ids() == frozenset()
        store.layer(BASE)  # the name is free
        (aside,) = (name for name in store.below("filesystem") if "-removing-" in name)
        assert any(aside in warning for warning in store.reopen().warnings)
        command("zfs", "release", "mine", store.dataset(f"{aside}@backup"))
        assert store.reopen().warnings == []
        assert store.below() == {"base"}

    def test_a_dataset_that_is_mounted_elsewhere_goes_later(self, store: Store, tmp_path: Path) -> None:
        store.layer(BASE, sealed=True)
        store.layer(CHILD, BASE)
        with mounted_elsewhere(store.dataset("child"), tmp_path / "elsewhere"):
            store.driver.remove(CHILD)
            assert (tmp_path / "elsewhere/of-base").exists(), "what somebody looks at stays"
        assert store.driver.cache_ids() == {"base"}
        store.layer(OTHER, BASE)
        store.driver.remove(OTHER)  # any removal tries again
        assert store.below("filesystem") == {"base"}

    def test_a_parent_waits_for_a_child_that_is_still_held(self, store: Store, tmp_path: Path) -> None:
        store.layer(BASE, sealed=True)
        store.layer(CHILD, BASE)
        with mounted_elsewhere(store.dataset("child"), tmp_path / "elsewhere"):
            store.driver.remove(CHILD)
            store.driver.remove(BASE)
            assert store.driver.cache_ids() == frozenset()
            assert len(store.below("filesystem")) == 2
            assert (tmp_path / "elsewhere/of-base").exists()
        store.reopen()
        assert store.below() == set()

    def test_somebody_s_clone_of_a_layer_is_never_removed(self, store: Store) -> None:
        store.layer(BASE)
        command("zfs", "snapshot", store.dataset("base@mine"))
        command("zfs", "clone", "-o", "mountpoint=none", store.dataset("base@mine"), f"{store.parent}-mine")
        store.driver.remove(BASE)
        store.reopen()
        assert command("zfs", "list", "-Ho", "name", f"{store.parent}-mine").strip() == f"{store.parent}-mine"
        command("zfs", "destroy", f"{store.parent}-mine")
        store.reopen()
        assert store.below() == set()

    def test_a_dataset_that_somebody_made_in_a_layer_is_never_removed(self, store: Store) -> None:
        store.layer(BASE)
        command("zfs", "create", "-o", "mountpoint=none", store.dataset("base/theirs"))
        store.driver.remove(BASE)
        store.reopen()
        (theirs,) = (name for name in store.below("filesystem") if name.endswith("/theirs"))
        command("zfs", "destroy", store.dataset(theirs))
        store.reopen()
        assert store.below() == set()


class TestAfterACrash:
    def test_between_snapshot_and_clone_nothing_leaks(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        zfs.snapshot(store.dataset("base@123"), {BETWEEN_MARK: "1"})
        store.reopen(after_kill=True)
        store.layer(CHILD, BASE)
        assert store.snapshots() == {"base@123"}, "it serves on"
        store.reopen()
        store.driver.remove(CHILD)
        assert store.snapshots() == set()

    def test_a_driver_that_was_killed_gives_its_snapshots_up_later(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        store.layer(CHILD, BASE)
        (snapshot,) = store.snapshots()
        store.reopen(after_kill=True)
        store.driver.remove(CHILD)
        store.driver.close()
        assert store.snapshots() == set(), snapshot

    def test_between_clone_and_properties_the_layer_is_found(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        zfs.snapshot(store.dataset("base@1"), {})
        zfs.clone(store.dataset(HEX), store.dataset("base@1"), {})
        store.reopen(after_kill=True)
        assert store.driver.cache_ids() == {"base", HEX}
        assert store.get("mountpoint", store.dataset(HEX)) == "legacy"
        assert store.shows(HEX) == {"of-base"}
        store.driver.remove(HEX)

    def test_a_name_that_was_sealed_and_lost_is_not_sealed_when_made_again(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        store.driver.close()
        command("zfs", "destroy", store.dataset("base"))
        store.reopen()
        store.layer(BASE)
        with pytest.raises(LayerInUse, match="not sealed"):
            store.driver.create(CHILD, BASE)

    def test_after_a_new_name_of_the_pool_everything_is_there(self, tmp_path: Path) -> None:
        with a_pool(tmp_path, size_bytes=256 << 20) as pool:
            root = tmp_path / "root"
            command("zfs", "create", "-o", f"mountpoint={root}", f"{pool}/docker")
            store = Store(root)
            store.layer(BASE, sealed=True)
            store.layer(CHILD, BASE)
            store.driver.close()
            command("zpool", "export", pool)
            command("zpool", "import", "-d", os.fspath(tmp_path), pool, f"{pool}-new")
            try:
                store = Store(root)
                assert store.parent == f"{pool}-new/docker"
                assert store.driver.cache_ids() == {"base", "child"}
                assert store.shows(CHILD) == {"of-base", "of-child"}
                store.layer(OTHER, BASE)
                with pytest.raises(LayerInUse):
                    store.driver.remove(BASE)
                store.driver.close()
            finally:
                command("zpool", "export", f"{pool}-new")
                command("zpool", "import", "-d", os.fspath(tmp_path), f"{pool}-new", pool)


class TestBehindOurBack:
    def test_a_layer_that_was_destroyed_is_told_by_name(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        store.layer(CHILD, BASE)
        store.layer(OTHER, BASE)
        command("zfs", "destroy", store.dataset("child"))
        with pytest.raises(NoSuchLayer, match=r"layer child is lost: its dataset .*/child was removed behind our back"):
            store.driver.attach(CHILD)
        assert store.driver.cache_ids() == {"base", "other"}
        store.driver.remove(CHILD)
        assert store.shows(OTHER) == {"of-base", "of-other"}

    def test_a_destroyed_parent_is_told_when_a_child_is_wanted(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        command("zfs", "destroy", "-r", store.dataset("base"))
        with pytest.raises(NoSuchLayer, match="layer base is lost"):
            store.driver.create(CHILD, BASE)
        assert store.driver.cache_ids() == frozenset()

    def test_a_destroyed_snapshot_is_made_again(self, store: Store) -> None:
        store.layer(BASE, sealed=True)
        store.layer(CHILD, BASE)
        store.driver.remove(CHILD)
        (snapshot,) = store.snapshots()
        command("zfs", "destroy", store.dataset(snapshot))
        store.layer(CHILD, BASE)
        assert store.shows(CHILD) == {"of-base", "of-child"}

    def test_a_changed_mount_point_is_set_back(self, store: Store, tmp_path: Path) -> None:
        store.layer(BASE)
        command("zfs", "set", f"mountpoint={tmp_path}/mine", store.dataset("base"))
        warnings = store.reopen().warnings
        assert warnings == [
            f"the layer {store.dataset('base')} had the mount point {tmp_path}/mine: set back to legacy"
        ]
        assert store.get("mountpoint", store.dataset("base")) == "legacy"
        assert store.shows(BASE) == {"of-base"}

    def test_datasets_of_others_are_left_alone(self, store: Store) -> None:
        command("zfs", "create", "-o", "mountpoint=legacy", store.dataset("theirs"))
        command("zfs", "create", "-V", "8M", store.dataset("volume"))
        store.layer(BASE, sealed=True)
        command("zfs", "snapshot", store.dataset("base@20261124"))
        store.reopen(after_kill=True)
        assert store.driver.cache_ids() == {"base"}
        store.driver.remove(CacheId("theirs"))
        with pytest.raises(AlreadyExists, match="exists and is no layer of this data root"):
            store.driver.create(CacheId("theirs"), None)
        store.driver.close()
        assert store.below() == {"base", "base@20261124", "theirs", "volume"}


class TestRoom:
    def test_a_full_pool_is_told_and_nothing_is_left(self, tmp_path: Path) -> None:
        with a_pool(tmp_path, size_bytes=64 << 20) as pool:
            root = tmp_path / "root"
            command("zfs", "create", "-o", f"mountpoint={root}", f"{pool}/docker")
            store = Store(root)
            store.layer(BASE, sealed=True)
            store.layer(CHILD, BASE)
            with pytest.raises(OSError, match="No space left"):
                store.fill(CHILD, files=1000)
            before = store.below()
            with pytest.raises(StorageFull, match="no room for layer other"):
                store.driver.create(OTHER, BASE)
            assert store.below() == before
            assert store.driver.cache_ids() == {"base", "child"}
            store.driver.remove(CHILD)
            assert store.shows(BASE) == {"of-base"}
            store.driver.create(OTHER, BASE)
            store.driver.close()


class TestWhere:
    def test_a_named_dataset_serves_a_root_on_another_file_system(self, store: Store, tmp_path: Path) -> None:
        command("zfs", "create", "-o", "mountpoint=none", f"{store.parent}-named")
        root = tmp_path / "plain"
        driver = Zfs(root, {"zfs.fsname": f"{store.parent}-named"})
        driver.create(BASE, None)
        with Mounts(driver).mounted(BASE) as tree:
            assert tree == root / "zfs/graph/base"
            (tree / "f").touch()
        assert driver.describe(BASE)["Dataset"] == f"{store.parent}-named/base"
        driver.close()

    def test_without_a_name_the_root_must_be_on_zfs(self, tmp_path: Path) -> None:
        with pytest.raises(Unsupported, match="not on zfs") as caught:
            Zfs(tmp_path)
        assert "put the data root on zfs, or name a dataset: --storage-opt zfs.fsname=POOL/NAME" in caught.value.hint

    @pytest.mark.parametrize("name", ["no-such-pool/x", "no-such-pool"])
    def test_a_dataset_that_is_not_there_is_told(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InvalidArgument, match=f"there is no dataset {name}") as caught:
            Zfs(tmp_path, {"zfs.fsname": name})
        assert "zfs create" in caught.value.hint

    def test_a_volume_is_no_place_for_layers(self, store: Store, tmp_path: Path) -> None:
        command("zfs", "create", "-V", "8M", f"{store.parent}-volume")
        with pytest.raises(InvalidArgument, match="is no file system"):
            Zfs(tmp_path / "plain", {"zfs.fsname": f"{store.parent}-volume"})

    def test_two_data_roots_never_share_a_dataset(self, store: Store, tmp_path: Path) -> None:
        store.layer(BASE)
        with pytest.raises(Conflict, match=f"holds the layers of the data root {store.root}"):
            Zfs(tmp_path / "second", {"zfs.fsname": store.parent})
        assert store.reopen().cache_ids() == {"base"}

    def test_a_data_root_that_moved_keeps_its_dataset(self, store: Store, tmp_path: Path) -> None:
        parent = f"{store.parent}-moving"
        command("zfs", "create", "-o", "mountpoint=none", parent)
        driver = Zfs(tmp_path / "old", {"zfs.fsname": parent})
        driver.create(BASE, None)
        driver.close()
        (tmp_path / "old").rename(tmp_path / "new")
        driver = Zfs(tmp_path / "new", {"zfs.fsname": parent})
        assert driver.cache_ids() == {"base"}
        driver.close()

    def test_two_stores_on_one_pool_do_not_touch_each_other(self, store: Store, tmp_path: Path) -> None:
        store.layer(BASE, sealed=True)
        with zfs_dataset(tmp_path / "second") as root:
            second = Store(root)
            second.layer(BASE)
            second.driver.remove(BASE)
            second.driver.close()
        assert store.reopen().cache_ids() == {"base"}


def test_what_is_made_needs_no_process(store: Store) -> None:
    """Half of dockerd's time goes into starting `zfs`."""
    script = f"""
import sys
from pathlib import Path
from lamina.storage.zfs.driver import Zfs
started = []
sys.addaudithook(lambda event, args: started.append(event) if event in ("subprocess.Popen", "os.fork", "os.posix_spawn") else None)
driver = Zfs(Path({os.fspath(store.root)!r}))
driver.create("a", None); driver.seal("a"); driver.create("b", "a"); driver.status(); driver.usage("b")
driver.remove("b"); driver.remove("a"); driver.close()
print(started)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
