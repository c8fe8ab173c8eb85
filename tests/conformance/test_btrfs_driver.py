"""What only the btrfs driver has: subvolumes inside layers, quota groups, damaged homes, and what its trees tell."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.errors import AlreadyExists, InvalidArgument, LayerInUse, NoSuchLayer, StorageFull, Unsupported
from lamina.ids import CacheId
from lamina.kernel import btrfs as kernel
from lamina.kernel.durable import sync_filesystem
from lamina.kernel.mounts import unmount
from lamina.rootfs.diff import changes
from lamina.rootfs.remove import remove_tree
from lamina.storage.btrfs.driver import Btrfs
from lamina.storage.btrfs.limits import opened
from lamina.storage.btrfs.probe import probe
from tests.conformance.grounds import image_file
from tests.conformance.grounds_btrfs import btrfs, no_btrfs, tiny_btrfs
from tests.conformance.trees import (
    Append,
    Chmod,
    Chown,
    Edit,
    HardLink,
    MakeDir,
    Remove,
    Rename,
    SetXattr,
    Symlink,
    Write,
    apply_edits,
    shown,
)

pytestmark = pytest.mark.root
BASE, RW = CacheId("base"), CacheId("rw")


@pytest.fixture(autouse=True)
def _kernel_part() -> None:
    if reason := no_btrfs():
        pytest.skip(f"btrfs: {reason}")


@pytest.fixture
def ground(place: Path) -> Iterator[Path]:
    with btrfs(place / "ground") as found:
        yield found


@pytest.fixture
def driver(ground: Path) -> Btrfs:
    """With a sealed layer `base`, and `rw` on it."""
    found = Btrfs(ground / "root")
    found.create(BASE, None)
    apply_edits(found.tree(BASE), [MakeDir("d"), Write("d/f", b"1"), Write("e", b"22")])
    found.seal(BASE)
    found.create(RW, BASE)
    return found


def nest(directory: Path, name: str) -> Path:
    """Make a subvolume, as a process in a container may."""
    with opened(directory) as fd:
        kernel.create_subvolume(fd, name)
    return directory / name


def set_read_only(subvolume: Path, *, read_only: bool) -> None:
    with opened(subvolume) as fd:
        kernel.set_read_only(fd, read_only=read_only)


def groups(ground: Path) -> dict[str, str]:
    """Quota group → largest referenced size, as btrfs-progs tell it."""
    sync_filesystem(ground)
    done = subprocess.run(
        ["btrfs", "qgroup", "show", "-r", "--raw", ground], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()[2:] if line]
    return {row[0]: row[3] for row in rows}


def create_until_full(driver: Btrfs, ground: Path) -> None:
    """Layers and files in turn; when no file fits any more, layers alone."""
    with suppress(OSError):
        for number in range(10_000):
            (ground / f"filler-{number}").write_bytes(bytes(60_000))
    for number in range(10_000):
        driver.create(CacheId(f"child-{number}"), BASE)


def drop_removed(ground: Path) -> None:
    """Have the kernel give back now what removed subvolumes took."""
    for command in ("filesystem", "subvolume"):
        subprocess.run(["btrfs", command, "sync", ground], check=True, capture_output=True)


class TestSubvolumesInside:
    def test_they_go_with_their_layer(self, driver: Btrfs) -> None:
        tree = driver.tree(RW)
        at = tree / "d"
        for depth in range(20):
            at = nest(at, f"inner-{depth}")
            (at / "file").write_bytes(b"x")
            (at / "directory").mkdir()
            at = at / "directory"
        for number in range(300):
            nest(tree, f"many-{number}")
        driver.remove(RW)
        assert driver.cache_ids() == {BASE}
        assert not tree.exists()

    def test_also_when_they_were_made_read_only(self, driver: Btrfs) -> None:
        outer = nest(driver.tree(RW), os.fsdecode(b"\xff outer"))
        (outer / "way").mkdir()
        inner = nest(outer / "way", "inner")
        nest(inner, "innermost")
        set_read_only(inner, read_only=True)
        set_read_only(outer, read_only=True)
        driver.remove(RW)
        assert driver.cache_ids() == {BASE}

    def test_changes_and_usage_are_found_without_the_short_way(self, driver: Btrfs) -> None:
        (nest(driver.tree(RW), "inner") / "file").write_bytes(b"12345")
        assert driver.touched(RW, BASE) is None
        assert driver.usage(RW).size_bytes == 5

    def test_a_plain_removal_takes_them_too(self, driver: Btrfs, ground: Path) -> None:
        """Volumes, and data roots that are given up, are removed as plain trees."""
        set_read_only(nest(driver.tree(RW), "inner"), read_only=True)
        remove_tree(ground / "root")
        assert os.listdir(ground) == []


class TestQuotas:
    def test_they_are_off_until_a_limit_is_asked_for(self, driver: Btrfs, ground: Path) -> None:
        with opened(ground) as fd:
            assert not kernel.quotas_enabled(fd)
            assert ("Quotas", "off") in driver.status()
            driver.limit_size(RW, 20 << 20)
            assert kernel.quotas_enabled(fd)
        assert ("Quotas", "enabled") in driver.status()

    def test_a_limit_lies_where_docker_keeps_it(self, driver: Btrfs, ground: Path) -> None:
        driver.limit_size(RW, 20 << 20)
        home = ground / "root/btrfs"
        assert (home / "quotas" / RW).read_bytes() == b"20971520"
        assert (home / "quotas").stat().st_mode & 0o777 == 0o700
        assert (home / "quotas" / RW).stat().st_mode & 0o777 == 0o644
        assert "20971520" in groups(ground).values()
        driver.remove(RW)
        assert os.listdir(home / "quotas") == []

    def test_a_writer_meets_the_limit(self, driver: Btrfs) -> None:
        driver.limit_size(RW, 10 << 20)
        with pytest.raises(OSError, match="quota") as caught:
            (driver.tree(RW) / "big").write_bytes(os.urandom(12 << 20))
        assert caught.value.errno == errno.EDQUOT
        (driver.tree(RW) / "big").unlink()
        sync_filesystem(driver.tree(RW))
        (driver.tree(RW) / "small").write_bytes(os.urandom(1 << 20))

    def test_attaching_puts_a_limit_in_force_again(self, driver: Btrfs, ground: Path) -> None:
        """dockerd 20.10 disables quotas when it stops."""
        driver.limit_size(RW, 10 << 20)
        subprocess.run(["btrfs", "quota", "disable", ground], check=True)
        again = Btrfs(ground / "root")
        assert again.attach(RW) == ()
        with pytest.raises(OSError, match="quota"):
            (again.tree(RW) / "big").write_bytes(os.urandom(12 << 20))

    def test_no_group_outlives_its_layer(self, driver: Btrfs, ground: Path) -> None:
        driver.limit_size(RW, 10 << 20)
        (driver.tree(RW) / "f").write_bytes(os.urandom(1 << 20))
        before = set(groups(ground))
        driver.create(CacheId("other"), BASE)
        driver.limit_size(CacheId("other"), 10 << 20)
        driver.remove(CacheId("other"))
        driver.close()
        drop_removed(ground)
        assert set(groups(ground)) == before
        again = Btrfs(ground / "root")
        assert set(groups(ground)) == before
        assert again.cache_ids() == {BASE, RW}

    def test_the_limits_of_layers_that_are_gone_are_forgotten_at_start(self, driver: Btrfs, ground: Path) -> None:
        driver.limit_size(RW, 10 << 20)
        subprocess.run(["btrfs", "subvolume", "delete", driver.tree(RW)], check=True, capture_output=True)
        Btrfs(ground / "root")
        assert os.listdir(ground / "root/btrfs/quotas") == []

    def test_a_limit_below_the_least_one_is_refused(self, ground: Path) -> None:
        driver = Btrfs(ground / "root", {"btrfs.min_space": "10M"})
        driver.create(BASE, None)
        with pytest.raises(InvalidArgument, match="storage size cannot be less than 10485760 bytes"):
            driver.limit_size(BASE, (10 << 20) - 1)
        with pytest.raises(InvalidArgument, match="invalid storage size"):
            driver.limit_size(BASE, 0)
        driver.limit_size(BASE, 10 << 20)
        assert ("Minimum Space", "10485760 bytes") in driver.status()


class TestDamage:
    def test_what_is_no_subvolume_is_no_layer(self, driver: Btrfs, ground: Path) -> None:
        subvolumes = ground / "root/btrfs/subvolumes"
        (subvolumes / "directory/x").mkdir(parents=True)
        (subvolumes / "file").write_bytes(b"")
        (subvolumes / "link").symlink_to("/etc")
        (subvolumes / "to-a-layer").symlink_to("base")
        again = Btrfs(ground / "root")
        assert again.cache_ids() == {BASE, RW}
        for name in ("directory", "file", "link", "to-a-layer"):
            with pytest.raises(NoSuchLayer):
                again.tree(CacheId(name))
            with pytest.raises(AlreadyExists):
                again.create(CacheId(name), None)
            again.remove(CacheId(name))
        assert sorted(os.listdir(subvolumes)) == ["base", "rw"]
        assert Path("/etc/passwd").exists()

    def test_missing_and_damaged_bookkeeping_is_made_good(self, driver: Btrfs, ground: Path) -> None:
        driver.limit_size(RW, 10 << 20)
        home = ground / "root/btrfs"
        (home / "quotas" / RW).write_bytes(b"many")
        (home / "quotas/directory").mkdir()
        remove_tree(home / "scratch")
        again = Btrfs(ground / "root")
        assert again.attach(RW) == ()
        assert again.usage(RW).size_bytes == 0
        assert (home / "scratch").is_dir()

    def test_what_a_kill_left_goes_at_the_next_start(self, driver: Btrfs, ground: Path) -> None:
        home = ground / "root/btrfs"
        with opened(home / "scratch") as fd, opened(driver.tree(RW)) as layer_fd:
            kernel.create_snapshot(layer_fd, fd, "left", read_only=True)
        (home / "scratch/file").touch()
        Btrfs(ground / "root")
        assert os.listdir(home / "scratch") == []

    def test_layers_that_vanish_under_an_open_driver_are_told(self, driver: Btrfs) -> None:
        subprocess.run(["btrfs", "subvolume", "delete", driver.tree(RW)], check=True, capture_output=True)
        with pytest.raises(NoSuchLayer):
            driver.seal(RW)
        driver.remove(RW)
        assert driver.cache_ids() == {BASE}

    def test_a_home_without_subvolumes_has_no_layers(self, driver: Btrfs, ground: Path) -> None:
        remove_tree(ground / "root/btrfs/subvolumes")
        again = Btrfs(ground / "root")
        assert again.cache_ids() == frozenset()
        again.create(BASE, None)

    def test_a_full_disk_is_told_and_nothing_is_left(self, place: Path) -> None:
        with tiny_btrfs(place / "tiny") as ground:
            driver = Btrfs(ground / "root")
            driver.create(BASE, None)
            (driver.tree(BASE) / "f").write_bytes(b"1")
            driver.seal(BASE)
            with pytest.raises(StorageFull, match="no room for layer"):
                create_until_full(driver, ground)
            made = len(driver.cache_ids()) - 1
            assert len(os.listdir(ground / "root/btrfs/subvolumes")) == made + 1
            assert (driver.tree(BASE) / "f").read_bytes() == b"1"


class TestSealing:
    def test_a_sealed_layer_is_on_disk_when_the_power_goes(self, place: Path) -> None:
        """The image file is copied while nothing else was synced, and the copy mounted: what a power cut leaves."""
        with btrfs(place / "ground") as ground:
            driver = Btrfs(ground / "root")
            driver.create(BASE, None)
            edits = [MakeDir("d"), *(Write(f"d/f{number}", os.urandom(9000)) for number in range(200))]
            apply_edits(driver.tree(BASE), edits)
            driver.create(CacheId("noise"), None)
            (driver.tree(CacheId("noise")) / "f").write_bytes(os.urandom(1 << 20))
            driver.seal(BASE)
            expected = shown(driver.tree(BASE))
            subprocess.run(["cp", "--sparse=always", place / "ground.img", place / "copy.img"], check=True)
        with image_file(
            place / "later", ("cp", "--sparse=always", os.fspath(place / "copy.img")), size_bytes=0
        ) as later:
            again = Btrfs(later / "root")
            assert shown(again.tree(BASE)) == expected
            again.create(RW, BASE)

    def test_a_device_that_works_has_no_write_errors(self, ground: Path) -> None:
        with opened(ground) as fd:
            assert kernel.write_errors(fd) == 0

    def test_a_durably_sealed_layer_refuses_writes(self, driver: Btrfs, ground: Path) -> None:
        driver.seal(RW, durable=False)
        (driver.tree(RW) / "early").touch()
        driver.seal(RW)
        for tree in (driver.tree(RW), Btrfs(ground / "root").tree(RW)):
            with pytest.raises(OSError, match="Read-only"):
                (tree / "late").touch()

    def test_layers_that_dockerd_left_writable_are_sealed_when_told(self, driver: Btrfs, ground: Path) -> None:
        set_read_only(driver.tree(BASE), read_only=False)
        again = Btrfs(ground / "root")
        with pytest.raises(LayerInUse, match="not sealed"):
            again.create(CacheId("child"), BASE)
        again.seal(BASE, durable=False)
        Btrfs(ground / "root").create(CacheId("child"), BASE)

    def test_marks_of_layers_that_are_gone_go_too(self, driver: Btrfs, ground: Path) -> None:
        driver.seal(RW, durable=False)
        subprocess.run(["btrfs", "subvolume", "delete", driver.tree(RW)], check=True, capture_output=True)
        Btrfs(ground / "root")
        assert os.listdir(ground / "root/btrfs/sealed") == []


class TestSpares:
    def use_twice(self, driver: Btrfs, ground: Path) -> list[str]:
        """A parent that is used a second time gets a spare; its name in `scratch`."""
        driver.create(CacheId("second"), BASE)
        scratch = ground / "root/btrfs/scratch"
        deadline = time.monotonic() + 20
        while not os.listdir(scratch):
            assert time.monotonic() < deadline, "no spare comes"
        return os.listdir(scratch)

    def test_the_next_child_is_the_spare(self, driver: Btrfs, ground: Path) -> None:
        (spare,) = self.use_twice(driver, ground)
        device = (ground / "root/btrfs/scratch" / spare).stat().st_dev
        # It is seen there a moment before the driver has it to give.
        children = (CacheId(f"child-{number}") for number in range(100))
        for child in children:
            driver.create(child, BASE)
            if driver.tree(child).stat().st_dev == device:
                break
        assert driver.tree(child).stat().st_dev == device
        assert shown(driver.tree(child)) == shown(driver.tree(BASE))
        (driver.tree(child) / "mine").touch()
        found = changes(driver.tree(child), driver.tree(BASE), driver.touched(child, BASE))
        assert [change.path for change in found] == ["/mine"]
        with pytest.raises(LayerInUse):
            driver.remove(BASE)
        driver.close()

    def test_it_goes_with_its_parent(self, driver: Btrfs, ground: Path) -> None:
        self.use_twice(driver, ground)
        driver.remove(RW)
        driver.remove(CacheId("second"))
        driver.remove(BASE)
        assert os.listdir(ground / "root/btrfs/scratch") == []
        driver.close()

    def test_closing_leaves_none_behind(self, driver: Btrfs, ground: Path) -> None:
        self.use_twice(driver, ground)
        driver.close()
        assert os.listdir(ground / "root/btrfs/scratch") == []

    def test_a_taken_name_costs_only_the_spare(self, driver: Btrfs, ground: Path) -> None:
        self.use_twice(driver, ground)
        with pytest.raises(AlreadyExists):
            driver.create(RW, BASE)
        assert driver.cache_ids() == {BASE, RW, "second"}
        driver.close()


class TestProbing:
    def test_elsewhere_the_remedy_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(Unsupported, match="not on btrfs") as caught:
            probe(tmp_path)
        assert "put the data root on btrfs" in caught.value.hint

    def test_it_leaves_nothing(self, ground: Path) -> None:
        probe(ground)
        assert os.listdir(ground) == []

    def test_on_a_read_only_file_system_the_remedy_is_told(self, ground: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", ground], check=True)
        with pytest.raises(Unsupported, match="Read-only") as caught:
            probe(ground)
        assert caught.value.hint == "mount the file system writable"

    @pytest.mark.parametrize("option", ["btrfs.nope", "vfs.size"])
    def test_unknown_options_are_refused(self, ground: Path, option: str) -> None:
        with pytest.raises(InvalidArgument, match=f"unknown option {option} of storage driver btrfs"):
            Btrfs(ground / "root", {option: "1"})
        assert os.listdir(ground) == []


NAMES = st.sampled_from(["a", "b", "c", "\udcff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
EDITS = st.one_of(
    st.builds(Write, PATHS, st.sampled_from([b"", b"x", b"y"]), st.just(0o644), st.sampled_from([5, 10**9])),
    st.builds(Append, PATHS, st.just(b"+")),
    st.builds(MakeDir, PATHS),
    st.builds(MakeDir, PATHS),
    st.builds(Symlink, PATHS, NAMES),
    st.builds(HardLink, PATHS, PATHS),
    st.builds(Remove, PATHS),
    st.builds(Rename, PATHS, PATHS),
    st.builds(Chmod, PATHS, st.sampled_from([0o600, 0o755])),
    st.builds(Chown, PATHS, st.integers(0, 1), st.integers(0, 1)),
    st.builds(SetXattr, PATHS, st.just("security.capability"), st.sampled_from([
        bytes.fromhex("0100000200200000000000000000000000000000"), bytes.fromhex("0100000200000200000000000000000000000000")
    ])),
)  # fmt: skip


def attempt(tree: Path, edits: list[Edit]) -> None:
    for edit in edits:
        try:
            edit.apply(tree)
        except OSError:
            continue  # it does not fit this tree


class TestWhatTheTreesTell:
    """`touched` must save work and never change an answer: also over hard links, renames and edits of the parent."""

    def test_random_edits_are_told_as_by_comparing_everything(self, ground: Path) -> None:
        driver = Btrfs(ground / "root")
        turns = iter(range(1_000_000))

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(EDITS, max_size=25), st.lists(EDITS, max_size=8), st.lists(EDITS, max_size=8), st.booleans())
        def compare(first: list[Edit], own: list[Edit], more: list[Edit], parent_too: bool) -> None:
            turn = next(turns)
            base, child = CacheId(f"base-{turn}"), CacheId(f"child-{turn}")
            driver.create(base, None)
            attempt(driver.tree(base), first)
            driver.seal(base, durable=False)
            driver.create(child, base)
            for edits in (own, more):
                attempt(driver.tree(child), edits)
                touched = driver.touched(child, base)
                assert touched is not None
                trees = driver.tree(child), driver.tree(base)
                assert changes(*trees, touched) == changes(*trees)
                if parent_too:
                    set_read_only(driver.tree(base), read_only=False)
                    attempt(driver.tree(base), own)
                    sync_filesystem(driver.tree(base))
            driver.remove(child)
            driver.remove(base)

        compare()

    def test_an_unchanged_layer_needs_no_look_at_its_files(self, driver: Btrfs) -> None:
        touched = driver.touched(RW, BASE)
        assert touched is not None
        assert (touched.inodes, touched.above) == (frozenset(), frozenset())

    def test_reading_is_no_change(self, driver: Btrfs) -> None:
        os.utime(driver.tree(RW) / "e", ns=(0, (driver.tree(RW) / "e").stat().st_mtime_ns))
        before = driver.touched(RW, BASE)
        (driver.tree(RW) / "d/f").read_bytes()
        os.listdir(driver.tree(RW) / "d")
        assert driver.touched(RW, BASE) == before

    def test_data_that_is_only_in_memory_counts(self, driver: Btrfs) -> None:
        with (driver.tree(RW) / "d/f").open("r+b") as file:
            file.write(b"2")
            file.flush()
            touched = driver.touched(RW, BASE)
        assert touched is not None
        assert (driver.tree(RW) / "d/f").stat().st_ino in touched.inodes

    def test_it_is_told_only_of_a_layer_and_its_parent(self, driver: Btrfs) -> None:
        driver.create(CacheId("other"), None)
        assert driver.touched(RW, CacheId("other")) is None

    def test_of_very_much_that_was_changed_nothing_is_told(self, driver: Btrfs) -> None:
        for number in range(5_100):
            (driver.tree(RW) / f"f{number}").touch()
        assert driver.touched(RW, BASE) is None

    def test_many_names_of_one_file(self, driver: Btrfs) -> None:
        tree = driver.tree(RW)
        for number in range(60):
            directory = tree / f"directory-{number}"
            directory.mkdir()
            for name in range(20):
                os.link(tree / "e", directory / (f"{name}-" + "n" * 200))
        driver.seal(RW, durable=False)
        driver.create(CacheId("top"), RW)
        top = driver.tree(CacheId("top"))
        apply_edits(top, [Append("directory-7/3-" + "n" * 200, b"more")])
        found = changes(top, tree, driver.touched(CacheId("top"), RW))
        assert found == changes(top, tree)
        assert len(found) == 60 * 21 + 1


def test_unmounting_the_ground_of_a_driver_that_is_open(place: Path) -> None:
    """The driver keeps no descriptor: the administrator may unmount what nothing uses."""
    with btrfs(place / "ground") as ground:
        driver = Btrfs(ground / "root")
        driver.create(BASE, None)
        subprocess.run(["mount", "--bind", ground, ground], check=True)
        unmount(ground)  # not lazily: fails when something is open
        assert driver.cache_ids() == {BASE}
