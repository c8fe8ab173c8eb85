"""What is the devicemapper driver's own: Docker's records, sizes, busy devices, udev."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lamina.errors import AlreadyExists, InvalidArgument
from lamina.ids import CacheId
from tests.unit.storage.devicemapper.stores import BASE, CHILD, OTHER, Store, device_number, store_at, wait_unshared

pytestmark = [pytest.mark.root, pytest.mark.vm_guest("devicemapper")]


class TestDockersRecords:
    def test_numbers_go_up_as_dockerds_do(self, store: Store) -> None:
        assert store.transaction() == 1
        store.driver.create(BASE, None)
        store.driver.seal(BASE)
        store.driver.create(CHILD, BASE)
        assert store.record(BASE).read_bytes() == (
            b'{"device_id":2,"size":100663296,"transaction_id":2,"initialized":false,"deleted":false}'
        )
        assert store.record(CHILD).read_bytes() == (
            b'{"device_id":3,"size":100663296,"transaction_id":3,"initialized":false,"deleted":false}'
        )
        store.driver.remove(CHILD)
        assert store.transaction() == 4
        assert store.record("transaction-metadata").read_bytes() == (
            b'{"open_transaction_id":4,"device_hash":"' + CHILD.encode() + b'","device_id":3}'
        )
        assert not store.record(CHILD).exists()
        store.driver.close()
        assert b'"next_device_id":3,' in store.record("deviceset-metadata").read_bytes()

    def test_what_a_layer_holds_beside_its_tree(self, store: Store) -> None:
        store.layer(BASE)
        store.layer(CHILD, BASE)
        with store.mounts.mounted(CHILD) as tree:
            assert sorted(os.listdir(tree.parent)) == ["id", "lost+found", "rootfs"]
            assert (tree.parent / "id").read_text() == BASE  # of the lowest one
            assert oct((tree.parent / "id").stat().st_mode & 0o7777) == "0o600"
            assert tree.parent == store.home / "mnt" / CHILD
        assert os.listdir(store.home / "mnt") == []

    def test_inspect_and_info_say_what_dockerds_say(self, store: Store) -> None:
        store.layer(BASE)
        prefix = store.pool.removesuffix("-pool")
        assert prefix == f"docker-{device_number(store.home)}-{store.home.stat().st_ino}"
        assert store.driver.describe(BASE) == {
            "DeviceId": "2",
            "DeviceName": f"{prefix}-{BASE}",
            "DeviceSize": "100663296",
        }
        rows = dict(store.driver.status())
        assert rows["Pool Blocksize"] == "65.54kB"
        assert rows["Base Device Size"] == "100.7MB"
        assert rows["Backing Filesystem"] == "ext4"
        assert rows["Data file"].startswith("/dev/loop")
        assert rows["Data loop file"] == os.fspath(store.home / "devicemapper/data")
        assert rows["Metadata loop file"] == os.fspath(store.home / "devicemapper/metadata")
        assert rows["Data Space Total"] == "2.147GB"
        assert rows["Deferred Deleted Device Count"] == "0"
        assert "usage of loopback devices is strongly discouraged" in store.driver.warnings[0]

    def test_devices_are_active_only_while_they_are_mounted(self, store: Store) -> None:
        store.layer(BASE)
        store.let_go()
        before = set(store.mapper.names())
        with store.mounts.mounted(BASE):
            (active,) = set(store.mapper.names()) - before
            assert active.endswith(BASE)
        store.driver.close()
        assert set(store.mapper.names()) == before - {f"{active.removesuffix(BASE)}pool"}
        store.open()

    def test_a_number_that_the_pool_has_already_is_passed_over(self, store: Store) -> None:
        store.message("create_thin 2")
        store.layer(BASE)
        assert store.driver.describe(BASE)["DeviceId"] == "3"

    def test_discarding_gives_the_blocks_back_to_the_file(self, store: Store) -> None:
        store.driver.create(BASE, None)
        data = store.home / "devicemapper/data"
        os.sync()
        before = data.stat().st_blocks
        with store.mounts.mounted(BASE) as tree:
            (tree / "large").write_bytes(os.urandom(16 << 20))
        os.sync()
        assert (data.stat().st_blocks - before) * 512 > 15 << 20
        store.driver.remove(BASE)
        os.sync()
        assert (data.stat().st_blocks - before) * 512 < 2 << 20


class TestSizes:
    @pytest.mark.parametrize("fstype", ["ext4", "xfs"])
    def test_a_layer_can_be_larger_than_the_base_and_its_children_are(self, tmp_path: Path, fstype: str) -> None:
        with store_at(tmp_path / "g", fstype) as store:
            store.layer(BASE)
            store.driver.create(CHILD, BASE)
            store.driver.limit_size(CHILD, 600 << 20)
            assert store.driver.describe(CHILD)["DeviceSize"] == str(600 << 20)
            with store.mounts.mounted(CHILD) as tree:
                room = os.statvfs(tree)
                assert 450 << 20 < room.f_blocks * room.f_frsize <= 600 << 20
                (tree / "large").write_bytes(bytes(1 << 20))
            store.driver.seal(CHILD, durable=False)
            store.layer(OTHER, CHILD)
            assert store.driver.describe(OTHER)["DeviceSize"] == str(600 << 20)
            assert store.names(OTHER) == ["large", "of-a", "of-c"]

    def test_a_mounted_layer_grows_too_and_writes_end_at_its_size(self, store: Store) -> None:
        store.layer(BASE)
        store.driver.create(CHILD, BASE)
        with store.mounts.mounted(CHILD) as tree:
            store.driver.limit_size(CHILD, 160 << 20)
            (tree / "fits").write_bytes(bytes(100 << 20))
            with pytest.raises(OSError, match="No space left"):
                (tree / "too much").write_bytes(bytes(80 << 20))

    def test_smaller_than_the_base_is_refused(self, store: Store) -> None:
        store.layer(BASE)
        store.driver.create(CHILD, BASE)
        with pytest.raises(InvalidArgument, match=r"cannot be smaller than the base, 100\.7MB"):
            store.driver.limit_size(CHILD, 50 << 20)
        store.driver.limit_size(CHILD, 96 << 20)

    def test_the_base_grows_and_does_not_shrink(self, store: Store) -> None:
        store.layer(BASE)
        store.open(basesize="200M")
        assert dict(store.driver.status())["Base Device Size"] == "209.7MB"
        store.layer(CHILD)
        assert store.driver.describe(CHILD)["DeviceSize"] == str(200 << 20)
        assert store.driver.describe(BASE)["DeviceSize"] == str(96 << 20)
        with store.mounts.mounted(CHILD) as tree:
            assert os.statvfs(tree).f_blocks * os.statvfs(tree).f_frsize > 150 << 20
        with pytest.raises(InvalidArgument, match=r"cannot be smaller than 209\.7MB"):
            store.open(basesize="96M")
        store.open(basesize="200M")

    def test_another_file_system_asked_for_later_is_ignored_and_told(self, store: Store) -> None:
        store.open(fs="xfs", mkfsarg="")
        assert any("dm.fs=xfs is ignored" in warning for warning in store.driver.warnings)

    def test_xfs_gives_up_when_it_was_told_to(self, tmp_path: Path) -> None:
        with store_at(tmp_path / "g", "xfs", xfs_nospace_max_retries="0") as store:
            store.layer(BASE)
            with store.mounts.mounted(BASE):
                node = Path(store.driver.attach(BASE)[0].source).name
                place = Path(f"/sys/fs/xfs/{node}/error/metadata/ENOSPC/max_retries")
                assert place.read_text().strip() == "0"

    def test_mount_options_reach_the_mount(self, tmp_path: Path) -> None:
        with store_at(tmp_path / "g", mountopt="noatime,barrier=0") as store:
            store.driver.create(BASE, None)
            with store.mounts.mounted(BASE) as tree:
                (line,) = [
                    line for line in Path("/proc/mounts").read_text().splitlines() if os.fspath(tree.parent) in line
                ]
                assert "noatime" in line
                assert "nobarrier" in line


class TestBusy:
    def test_a_mount_held_elsewhere_puts_removal_off_until_it_ends(self, store: Store) -> None:
        store.layer(BASE)
        store.driver.create(CHILD, BASE)
        tree = store.mounts.acquire(CHILD)
        with subprocess.Popen(["unshare", "-m", "--propagation", "private", "sleep", "1000"]) as holder:
            wait_unshared(holder.pid)
            with (tree / "open").open("w") as file:
                store.mounts.release(CHILD)  # detached here; still open
                store.driver.remove(CHILD)
                assert store.driver.cache_ids() == {BASE}
                assert dict(store.driver.status())["Deferred Deleted Device Count"] == "1"
                assert b'"deleted":true' in store.record(CHILD).read_bytes()
                with pytest.raises(AlreadyExists, match="exists"):
                    store.driver.create(CHILD, BASE)
                file.write("still works")
            holder.kill()
        store.open()
        assert dict(store.driver.status())["Deferred Deleted Device Count"] == "0"
        assert not store.record(CHILD).exists()
        store.layer(CHILD, BASE)

    def test_a_parent_that_is_mounted_can_get_children(self, store: Store) -> None:
        store.layer(BASE)
        with store.mounts.mounted(BASE) as tree:
            store.layer(CHILD, BASE)
            assert (tree / "of-a").read_text() == "a"
        assert store.names(CHILD) == ["of-a", "of-b"]

    def test_usage_of_a_mounted_layer_leaves_it_mounted(self, store: Store) -> None:
        store.layer(BASE)
        store.driver.create(CHILD, BASE)
        with store.mounts.mounted(CHILD) as tree:
            (tree / "f").write_bytes(b"x" * 1000)
            assert store.driver.usage(CHILD).size_bytes == 1000
            assert (tree / "f").read_bytes() == b"x" * 1000
        assert store.driver.usage(CHILD).size_bytes == 1000
        store.open()
        assert [name for name in store.mapper.names() if name.startswith(store.pool[:-4])] == [store.pool]


class TestUdev:
    def test_with_udevd_devices_come_and_go_just_the_same(self, store: Store) -> None:
        daemon = "/lib/systemd/systemd-udevd"
        if not os.path.exists(daemon):
            pytest.skip("systemd-udevd is not installed")
        subprocess.run([daemon, "--daemon", "--resolve-names=never"], check=True)
        try:
            store.layer(BASE)
            for number in range(6):
                name = CacheId(f"layer-{number}")
                store.layer(name, BASE)
                assert store.names(name) == ["of-a", "of-l"]
                store.driver.remove(name)
            with store.mounts.mounted(BASE):
                subprocess.run(["udevadm", "settle"], check=True)
                assert Path("/dev/mapper", store.driver.describe(BASE)["DeviceName"]).exists()
            assert store.driver.cache_ids() == {BASE}
            store.driver.close()
            store.open()
            assert store.names(BASE) == ["of-a"]
        finally:
            subprocess.run(["udevadm", "settle"], check=True)
            subprocess.run(["udevadm", "control", "--exit"], check=True)
