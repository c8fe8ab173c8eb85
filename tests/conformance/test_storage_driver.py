"""The contract of a storage driver, case by case, over every driver of the table."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from lamina.errors import AlreadyExists, InvalidArgument, LayerInUse, NoSuchLayer, StorageFull
from lamina.ids import CacheId
from lamina.kernel.mounts import is_mountpoint, mount, unmount
from lamina.rootfs.diff import Change, ChangeKind, upper_changes
from lamina.storage.driver import KeepsUpper, Rebases, StorageDriver
from tests.conformance.conftest import Bench
from tests.conformance.hosts import STORAGE, Host
from tests.conformance.trees import (
    WHEN_NS,
    Append,
    Chmod,
    Chown,
    Edit,
    HardLink,
    MakeDir,
    Node,
    Remove,
    Rename,
    SetXattr,
    Symlink,
    Write,
    apply_edits,
    shown,
)

pytestmark = pytest.mark.root

BASE: tuple[Edit, ...] = (
    MakeDir("a subdir", 0o1705),
    Chown("a subdir", 1, 2),
    Write("a file", b"content", 0o222),
    Chmod("a file", 0o4222),
    MakeDir("etc"),
    Write("etc/hosts", b"127.0.0.1 localhost\n"),
    Symlink("etc/mtab", "/proc/mounts"),
)


class TestWhatALayerShows:
    def test_a_new_layer_without_parent_is_an_empty_root(self, bench: Bench) -> None:
        bench.layer("new")
        tree = bench.shows("new")
        assert set(tree) == {"."}
        assert (tree["."].kind, tree["."].mode, tree["."].uid, tree["."].gid) == ("d", 0o755, 0, 0)

    def test_a_layer_shows_what_was_written_into_it(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE)
        tree = bench.shows("base")
        assert (tree["a subdir"].kind, tree["a subdir"].mode, tree["a subdir"].uid) == ("d", 0o1705, 1)
        assert (tree["a file"].mode, tree["a file"].content, tree["a file"].uid) == (0o4222, b"content", 0)

    def test_a_new_layer_shows_its_parent(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        assert bench.shows("child") == bench.shows("base")

    def test_edits_do_not_reach_the_parent(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        before = bench.shows("base")
        bench.layer("child", "base", Append("a file", b"more"), Remove("etc/hosts"), Chmod("etc", 0o700))
        assert bench.shows("base") == before
        assert bench.shows("child")["a file"].content == b"contentmore"

    def test_edits_do_not_reach_a_sibling(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("one", "base", Write("a file", b"one"))
        bench.layer("two", "base", Write("a file", b"two"))
        assert bench.shows("one")["a file"].content == b"one"
        assert bench.shows("two")["a file"].content == b"two"

    def test_a_deleted_file_is_gone(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("middle", "base", Remove("etc/hosts"), sealed=True)
        bench.layer("top", "middle")
        assert "etc/hosts" not in bench.shows("top")
        assert "etc/mtab" in bench.shows("top")

    def test_a_deleted_file_can_come_back(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("middle", "base", Remove("etc"), sealed=True)
        bench.layer("top", "middle", Write("etc", b"a file now"))
        assert bench.shows("top")["etc"].content == b"a file now"

    def test_a_directory_deleted_and_made_again_hides_the_old_one(self, bench: Bench) -> None:
        """moby #25244."""
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("middle", "base", Remove("etc"), MakeDir("etc"), Write("etc/new", b"n"), sealed=True)
        bench.layer("top", "middle")
        assert sorted(name for name in bench.shows("top") if name.startswith("etc/")) == ["etc/new"]

    def test_chown_of_parents_survives(self, bench: Bench) -> None:
        """moby #20240, #24913, #28391."""
        bench.layer("base", None, MakeDir("home"), MakeDir("home/user"), Write("home/user/f"), sealed=True)
        bench.layer("owned", "base", Chown("home", 7, 8), Chown("home/user", 9, 10), sealed=True)
        bench.layer("top", "owned", Write("home/user/g"))
        tree = bench.shows("top")
        assert (tree["home"].uid, tree["home"].gid) == (7, 8)
        assert (tree["home/user"].uid, tree["home/user"].gid) == (9, 10)

    def test_metadata_of_the_root_is_as_docker_has_it(self, bench: Bench) -> None:
        bench.layer("base", None, Chmod(".", 0o711), Chown(".", 3, 4), sealed=True)
        bench.layer("top", "base")
        root = bench.shows("top")["."]
        expected = (0o711, 3, 4) if bench.host.inherits_root else (0o755, 0, 0)
        assert (root.mode, root.uid, root.gid) == expected

    def test_rename_across_layers(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("middle", "base", Rename("a file", "etc/moved"), Rename("etc", "etc2"), sealed=True)
        bench.layer("top", "middle")
        tree = bench.shows("top")
        assert "a file" not in tree
        assert "etc" not in tree
        assert tree["etc2/moved"].content == b"content"
        assert tree["etc2/hosts"].mtime_ns == WHEN_NS

    def test_hard_links_stay_one_inode(self, bench: Bench) -> None:
        bench.layer("base", None, Write("one", b"1"), MakeDir("d"), HardLink("d/two", "one"), sealed=True)
        bench.layer("child", "base")
        assert bench.shows("child")["one"].links == ("d/two", "one")

    def test_hard_links_to_the_parents_files_can_be_made(self, bench: Bench) -> None:
        bench.layer("base", None, Write("one", b"1"), sealed=True)
        bench.layer("child", "base", HardLink("two", "one"), sealed=True)
        bench.layer("top", "child")
        assert bench.shows("top")["two"].links == ("one", "two")

    def test_every_kind_of_file_survives(self, bench: Bench) -> None:
        edits: tuple[Edit, ...] = (
            Write("setuid", b"x", 0o6755),
            MakeDir("sticky", 0o1777),
            Node("null", stat.S_IFCHR, os.makedev(1, 3), 0o666),
            Node("loop", stat.S_IFBLK, os.makedev(7, 0), 0o660),
            Node("fifo", stat.S_IFIFO),
            Node("socket", stat.S_IFSOCK),
            Symlink("dangling", "no/where"),
            SetXattr("setuid", "user.note", b"\x00\xff"),
            SetXattr("sticky", "trusted.lamina", b"t"),
            Write("n" * 255, b"long name"),
            Write(os.fsdecode(b"\xff\xfe not utf-8"), b"bytes"),
        )
        bench.layer("base", None, *edits, sealed=True)
        oracle = bench.root.parent / "oracle"
        oracle.mkdir()
        apply_edits(oracle, edits)
        bench.layer("child", "base")
        tree = bench.shows("child")
        assert tree == shown(oracle)
        assert tree["setuid"].mode == 0o6755

    def test_file_capabilities_survive(self, bench: Bench) -> None:
        ping = bytes.fromhex("0100000200200000000000000000000000000000")
        bench.layer(
            "base", None, Write("ping", b"x", 0o755), SetXattr("ping", "security.capability", ping), sealed=True
        )
        bench.layer("child", "base", Chmod("ping", 0o700))
        assert dict(bench.shows("child")["ping"].xattrs)["security.capability"] == ping

    def test_modification_times_survive(self, bench: Bench) -> None:
        bench.layer("base", None, Write("f", b"x", mtime_ns=1), Symlink("l", "f"), sealed=True)
        bench.layer("child", "base")
        tree = bench.shows("child")
        assert tree["f"].mtime_ns == 1
        assert tree["l"].mtime_ns == WHEN_NS

    def test_holes_and_large_offsets_survive(self, bench: Bench) -> None:
        bench.layer("base")
        with bench.mounts.mounted(CacheId("base")) as tree, (tree / "sparse").open("wb") as file:
            file.seek(1 << 32)
            file.write(b"end")
        bench.driver.seal(CacheId("base"), durable=False)
        bench.layer("child", "base")
        with bench.mounts.mounted(CacheId("child")) as tree:
            status = (tree / "sparse").stat()
            assert status.st_size == (1 << 32) + 3
            assert status.st_blocks * 512 < 1 << 20
            with (tree / "sparse").open("rb") as file:
                file.seek(1 << 32)
                assert file.read() == b"end"

    def test_128_layers_mount(self, bench: Bench) -> None:
        bench.layer("layer-0", None, Write("base-file", b"base"), Write("top-id", b"0"), sealed=True)
        for number in range(1, 128):
            edits = (Write("top-id", str(number).encode()), Write(f"from-{number}", str(number).encode()))
            bench.layer(f"layer-{number}", f"layer-{number - 1}", *edits, sealed=True)
        bench.layer("rw", "layer-127", Write("mine", b"m"))
        tree = bench.shows("rw")
        assert tree["top-id"].content == b"127"
        assert tree["base-file"].content == b"base"
        assert all(tree[f"from-{number}"].content == str(number).encode() for number in range(1, 128))


class TestSealing:
    def test_an_unsealed_layer_refuses_to_be_a_parent(self, bench: Bench) -> None:
        bench.layer("open")
        with pytest.raises(LayerInUse, match="not sealed"):
            bench.driver.create(CacheId("child"), CacheId("open"))
        assert bench.driver.cache_ids() == {"open"}

    @pytest.mark.parametrize(
        "bench", [host for host in STORAGE if host.seals_by_mount], indirect=True, ids=lambda host: host.name
    )
    def test_a_sealed_layer_refuses_writes(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base", Write("mine"), sealed=True)
        with bench.mounts.mounted(CacheId("child")) as tree, pytest.raises(OSError, match="Read-only"):
            (tree / "late").write_bytes(b"")

    def test_a_sealed_layer_still_shows_everything(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base", Write("mine", b"m"), Remove("etc/hosts"))
        before = bench.shows("child")
        bench.driver.seal(CacheId("child"))
        assert bench.shows("child") == before

    def test_sealing_twice_is_fine(self, bench: Bench) -> None:
        bench.layer("base", sealed=True)
        bench.driver.seal(CacheId("base"))

    def test_sealing_survives_a_restart(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("open", "base")
        bench.reopen()
        bench.layer("child", "base")
        with pytest.raises(LayerInUse):
            bench.layer("grandchild", "open")

    def test_sealing_an_unknown_layer_is_refused(self, bench: Bench) -> None:
        with pytest.raises(NoSuchLayer):
            bench.driver.seal(CacheId("nobody"))


class TestRemoving:
    def test_a_removed_layer_is_gone(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base", Write("f"))
        bench.driver.remove(CacheId("child"))
        assert bench.driver.cache_ids() == {"base"}
        with pytest.raises(NoSuchLayer):
            bench.driver.attach(CacheId("child"))

    def test_nothing_of_removed_layers_is_left_on_disk(self, bench: Bench) -> None:
        before = names_below(bench)
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base", Write("f"))
        bench.shows("child")
        bench.driver.remove(CacheId("child"))
        bench.driver.remove(CacheId("base"))
        assert names_below(bench) == before

    def test_removing_a_parent_is_refused(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        with pytest.raises(LayerInUse):
            bench.driver.remove(CacheId("base"))
        assert "a file" in bench.shows("child")
        bench.driver.remove(CacheId("child"))
        bench.driver.remove(CacheId("base"))
        assert bench.driver.cache_ids() == frozenset()

    def test_removing_a_parent_is_refused_after_a_restart(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        bench.reopen()
        with pytest.raises(LayerInUse):
            bench.driver.remove(CacheId("base"))

    def test_removing_twice_and_removing_an_unknown_layer_is_fine(self, bench: Bench) -> None:
        bench.layer("base")
        bench.driver.remove(CacheId("base"))
        bench.driver.remove(CacheId("base"))
        bench.driver.remove(CacheId("nobody"))

    def test_removing_a_mounted_layer_is_refused(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        if not bench.driver.attach(CacheId("child")):
            bench.driver.remove(CacheId("child"))  # nothing is ever mounted
            return
        with bench.mounts.mounted(CacheId("child")), pytest.raises(LayerInUse):
            bench.driver.remove(CacheId("child"))
        bench.driver.remove(CacheId("child"))

    def test_names_that_are_paths_are_refused(self, bench: Bench) -> None:
        for name in ("", "../x", "a/b", ".", "..", "l" if bench.host.name == "overlay2" else "/", "a:b", "a,b"):
            with pytest.raises(InvalidArgument):
                bench.driver.create(CacheId(name), None)
            bench.driver.remove(CacheId(name))
        assert bench.driver.cache_ids() == frozenset()


class TestCreating:
    def test_a_taken_name_is_refused_and_its_layer_kept(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE)
        with pytest.raises(AlreadyExists):
            bench.driver.create(CacheId("base"), None)
        assert "a file" in bench.shows("base")

    def test_a_failed_create_leaves_nothing(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        before = names_below(bench)
        with pytest.raises(NoSuchLayer):
            bench.driver.create(CacheId("child"), CacheId("nobody"))
        with pytest.raises(AlreadyExists):
            bench.driver.create(CacheId("base"), CacheId("base"))
        assert names_below(bench) == before

    @pytest.mark.parametrize("host", [host for host in STORAGE if host.tiny], ids=lambda host: host.name)
    def test_a_full_disk_is_told_and_nothing_is_left(self, host: Host, place: Path) -> None:
        host.require()
        assert host.tiny is not None
        with host.tiny(place / "disk") as disk:
            bench = Bench(host, disk / "root")
            bench.layer("base", None, *(Write(f"f{number}") for number in range(20)), sealed=True)
            fill_up(disk)
            before = names_below(bench)
            with pytest.raises(StorageFull, match="no room for layer child"):
                bench.driver.create(CacheId("child"), CacheId("base"))
            assert names_below(bench) == before
            assert bench.driver.cache_ids() == {"base"}
            bench.driver.close()

    def test_layers_are_listed_after_a_restart(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base", Write("mine", b"m"))
        bench.reopen()
        assert bench.driver.cache_ids() == {"base", "child"}
        assert bench.shows("child")["mine"].content == b"m"

    def test_many_threads_create_and_remove_at_once(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(5):
                    name = f"t{number}-{turn}"
                    bench.layer(name, "base", Write("mine", name.encode()))
                    assert bench.shows(name)["mine"].content == name.encode()
                    bench.driver.remove(CacheId(name))
            except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert bench.driver.cache_ids() == {"base"}


class TestMounting:
    def test_attaching_and_detaching_twice_is_fine(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        assert bench.driver.attach(CacheId("child")) == bench.driver.attach(CacheId("child"))
        bench.driver.detach(CacheId("child"))
        bench.driver.detach(CacheId("child"))

    def test_a_mount_lasts_until_its_last_user_is_gone(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        with bench.mounts.mounted(CacheId("child")) as tree:
            with bench.mounts.mounted(CacheId("child")):
                pass
            assert (tree / "a file").exists()

    def test_what_was_mounted_before_a_restart_counts_as_one_use(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        bench.mounts.acquire(CacheId("child"))
        place = bench.driver.mount_point(CacheId("child"))
        if not bench.driver.attach(CacheId("child")):
            return  # nothing is ever mounted
        bench.reopen()
        with bench.mounts.mounted(CacheId("child")):
            pass
        assert is_mountpoint(place), "a short use took the container's root away"
        bench.mounts.release(CacheId("child"))
        assert not is_mountpoint(place)

    def test_recovery_unmounts_what_no_container_uses(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        places = {}
        for name in ("dead", "live"):
            bench.layer(name, "base")
            bench.mounts.acquire(CacheId(name))
            places[name] = bench.driver.mount_point(CacheId(name))
        if not bench.driver.attach(CacheId("live")):
            return  # nothing is ever mounted
        bench.reopen()
        assert bench.mounts.recover({CacheId("live")}) == ["dead"]
        assert not is_mountpoint(places["dead"])
        assert is_mountpoint(places["live"])
        bench.mounts.release(CacheId("live"))

    def test_the_mounts_a_driver_names_can_be_made_by_anybody(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base", Write("mine"))
        wanted = bench.driver.attach(CacheId("child"))
        for one in wanted:
            mount(one)
        assert (bench.driver.tree(CacheId("child")) / "mine").exists()
        for one in reversed(wanted):
            unmount(one.target)
        bench.driver.detach(CacheId("child"))

    def test_closing_twice_is_fine(self, bench: Bench) -> None:
        bench.driver.close()
        bench.driver.close()


class TestTelling:
    def test_usage_counts_this_layer_only(self, bench: Bench) -> None:
        bench.layer("base", None, Write("big", b"b" * 100_000), sealed=True)
        bench.layer("child", "base", Write("small", b"s" * 513), MakeDir("d"), HardLink("same", "small"))
        assert bench.driver.usage(CacheId("base")).size_bytes == 100_000
        assert bench.driver.usage(CacheId("child")).size_bytes == 513

    def test_deleting_takes_no_room(self, bench: Bench) -> None:
        bench.layer("base", None, Write("big", b"b" * 100_000), sealed=True)
        bench.layer("child", "base", Remove("big"))
        assert bench.driver.usage(CacheId("child")).size_bytes == 0

    def test_status_and_description_are_text(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in bench.driver.status())
        described = bench.driver.describe(CacheId("child"))
        assert all(part.startswith(os.fspath(bench.root)) for part in ":".join(described.values()).split(":") if part)

    def test_changes_of_a_layer(self, bench: Bench) -> None:
        """graphtest's Changes: every third file modified, added, deleted."""
        files = [f"directory-0/file-{number}" for number in range(20)]
        bench.layer("base", None, MakeDir("directory-0"), *(Write(name, b"x") for name in files), sealed=True)
        edits: list[Edit] = []
        expected = {Change(ChangeKind.MODIFY, "/directory-0")}
        for number, name in enumerate(files):
            if number % 3 == 0:
                edits.append(Append(name, b"y"))
                expected.add(Change(ChangeKind.MODIFY, f"/{name}"))
            elif number % 3 == 1:
                edits.append(Write(f"{name}-added"))
                expected.add(Change(ChangeKind.ADD, f"/{name}-added"))
            else:
                edits.append(Remove(name))
                expected.add(Change(ChangeKind.DELETE, f"/{name}"))
        bench.layer("upper", "base", *edits)
        found = bench.changes("upper", "base")
        assert set(found) == expected
        assert len(found) == len(expected)

    def test_a_file_replaced_in_the_same_second_is_seen(self, bench: Bench) -> None:
        """moby #21555."""
        bench.layer("base", None, Write("f", b"one", mtime_ns=5_000_000_001), sealed=True)
        bench.layer("child", "base", Write("f", b"two", mtime_ns=5_000_000_002))
        assert bench.changes("child", "base") == [Change(ChangeKind.MODIFY, "/f")]

    def test_the_upper_directory_tells_the_same_changes(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, MakeDir("d"), Write("d/f"), sealed=True)
        bench.layer("middle", "base", Remove("a file"), Remove("d"), MakeDir("d"), sealed=True)
        bench.layer("child", "middle", Write("a file", b"again"), Remove("etc"), MakeDir("etc"), Chmod("d", 0o700))
        compared = bench.changes("child", "middle")
        assert upper_or_compared(bench, "child", "middle") == compared
        assert Change(ChangeKind.ADD, "/a file") in compared
        assert Change(ChangeKind.DELETE, "/etc/hosts") in compared


class TestFillingBeforeTheParent:
    def test_a_layer_filled_first_shows_its_parent_after_rebase(self, bench: Bench) -> None:
        driver = bench.driver
        if not isinstance(driver, Rebases):
            assert not hasattr(driver, "rebase")
            return
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("early", None, Write("mine", b"m"))
        driver.rebase(CacheId("early"), CacheId("base"))
        driver.rebase(CacheId("early"), CacheId("base"))
        bench.reopen()
        tree = bench.shows("early")
        assert tree["mine"].content == b"m"
        assert tree["a file"].content == b"content"
        with pytest.raises(LayerInUse):
            bench.driver.remove(CacheId("base"))

    def test_rebase_wants_an_open_layer_and_a_sealed_parent(self, bench: Bench) -> None:
        driver: StorageDriver = bench.driver
        if not isinstance(driver, Rebases):
            return
        bench.layer("base", None, sealed=True)
        bench.layer("open", None)
        bench.layer("other", None)
        with pytest.raises(LayerInUse):
            driver.rebase(CacheId("other"), CacheId("open"))
        with pytest.raises(LayerInUse):
            driver.rebase(CacheId("base"), CacheId("base"))


def upper_or_compared(bench: Bench, name: str, parent: str) -> list[Change]:
    """The fast way where the driver has one."""
    driver = bench.driver
    if isinstance(driver, KeepsUpper):
        cache_id = CacheId(name)
        return upper_changes(driver.upper(cache_id), "trusted.overlay.opaque", driver.lowers(cache_id))
    return bench.changes(name, parent)


def names_below(bench: Bench) -> set[str]:
    return {
        os.path.relpath(os.path.join(top, name), bench.root)
        for top, directories, files in os.walk(bench.root)
        for name in directories + files
    }


def fill_up(disk: Path) -> None:
    """Take all inodes but two, so that the first steps of a creation still work."""
    made = []
    try:
        while True:
            made.append(disk / f"filler-{len(made)}")
            made[-1].touch()
    except OSError:
        for place in made[-3:-1]:
            place.unlink()
