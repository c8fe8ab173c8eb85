"""The contract of a storage driver, case by case, over every driver of the table."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from lamina.errors import AlreadyExists, InvalidArgument, LayerInUse, NoSuchLayer
from lamina.ids import CacheId
from tests.conformance.conftest import Bench, names_below
from tests.conformance.hosts import STORAGE
from tests.conformance.trees import (
    BASE,
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
