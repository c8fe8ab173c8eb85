"""Damaged records, lost files, full pools, and pools of somebody else."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from lamina.errors import AlreadyExists, Conflict, CorruptRecord, InvalidArgument, NotFound, StorageFull
from lamina.kernel import loop
from lamina.kernel.devicemapper import DeviceMapper
from lamina.kernel.dm_ioctl import Target
from lamina.rootfs.copytree import copy_tree
from lamina.storage.devicemapper.driver import DeviceMapperDriver
from lamina.storage.mounting import Mounts
from tests.conformance.grounds_devicemapper import SMALL, a_pool, on_a_pool, open_on_a_pool
from tests.unit.storage.devicemapper.stores import BASE, CHILD, OTHER, Store, thin_target

pytestmark = [pytest.mark.root, pytest.mark.vm_guest("devicemapper")]


class TestDamage:
    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"device_id":2}', bytes(80)])
    def test_a_damaged_record_costs_its_layer_alone(self, store: Store, raw: bytes) -> None:
        store.layer(BASE)
        store.layer(CHILD, BASE)
        store.record(BASE).write_bytes(raw)
        store.open()
        assert store.driver.cache_ids() == {CHILD}
        assert any(os.fspath(store.record(BASE)) in warning for warning in store.driver.warnings)
        assert store.names(CHILD) == ["of-a", "of-b"]
        with pytest.raises(CorruptRecord, match=BASE):
            store.driver.attach(BASE)
        with pytest.raises(AlreadyExists):
            store.driver.create(BASE, None)
        store.driver.remove(BASE)
        assert not store.record(BASE).exists()

    def test_a_damaged_transaction_is_told_and_the_layers_are_there(self, store: Store) -> None:
        store.layer(BASE)
        store.record("transaction-metadata").write_bytes(b'{"open_tr')
        store.open()
        assert any("transaction-metadata is damaged" in warning for warning in store.driver.warnings)
        assert store.names(BASE) == ["of-a"]
        store.layer(CHILD, BASE)

    @pytest.mark.parametrize("raw", [b"", b"{", None])
    def test_the_sets_record_is_made_again_from_the_base(self, store: Store, raw: bytes | None) -> None:
        before = store.record("deviceset-metadata").read_bytes()
        store.layer(BASE)
        if raw is None:
            store.record("deviceset-metadata").unlink()
        else:
            store.record("deviceset-metadata").write_bytes(raw)
        store.open()
        uuid = before.partition(b'"BaseDeviceUUID":')[2]
        assert store.record("deviceset-metadata").read_bytes().endswith(uuid)
        store.layer(CHILD, BASE)

    def test_a_damaged_base_record_is_named(self, store: Store) -> None:
        good = store.record("base").read_bytes()
        store.record("base").write_bytes(b"{")
        with pytest.raises(CorruptRecord, match="metadata/base is damaged"):
            store.open()
        store.record("base").write_bytes(good)
        store.open()

    def test_a_device_the_pool_lost_is_named(self, store: Store) -> None:
        store.layer(BASE)
        store.layer(CHILD, BASE)
        device = int(store.driver.describe(CHILD)["DeviceId"])
        store.let_go()
        store.message(f"delete {device}")
        number = store.transaction()
        store.message(f"set_transaction_id {number} {number + 5}")
        store.open()
        assert store.driver.cache_ids() == {BASE}
        assert any(
            CHILD in warning and "is lost" in warning and f"has no device {device}" in warning
            for warning in store.driver.warnings
        )
        store.driver.remove(CHILD)
        assert not store.record(CHILD).exists()

    def test_a_base_without_file_system_is_named(self, store: Store) -> None:
        device = store.mapper.create("lamina-spoil", [thin_target(store, 1)])
        with device.node.open("r+b") as file:
            file.write(bytes(8192))
        store.mapper.remove("lamina-spoil", deferred=False)
        with pytest.raises(CorruptRecord, match="holds no file system"):
            store.open()


class TestLoopFiles:
    @pytest.mark.parametrize("lost", ["data", "metadata"])
    def test_a_lost_file_is_named_and_none_is_made_in_its_place(self, store: Store, lost: str) -> None:
        store.layer(BASE)
        store.driver.close()
        file = store.home / "devicemapper" / lost
        file.rename(file.with_name("kept"))
        with pytest.raises(CorruptRecord, match=f"devicemapper/{lost} is gone"):
            store.open()
        assert not file.exists()
        file.with_name("kept").rename(file)
        store.open()
        assert store.names(BASE) == ["of-a"]

    def test_both_files_lost_is_told_too(self, store: Store) -> None:
        store.layer(BASE)
        store.driver.close()
        (store.home / "devicemapper").rename(store.home / "kept")
        with pytest.raises(CorruptRecord, match="is gone: the layers of this store were in it"):
            store.open()
        (store.home / "devicemapper").exists() and (store.home / "devicemapper").rmdir()
        (store.home / "kept").rename(store.home / "devicemapper")

    def test_loop_devices_that_went_are_attached_again(self, store: Store) -> None:
        store.layer(BASE)
        store.driver.close()
        assert loop.find(store.home / "devicemapper/data") == []
        store.open()
        assert store.names(BASE) == ["of-a"]

    def test_a_pool_that_stands_on_a_file_that_is_gone_is_told(self, store: Store) -> None:
        store.layer(BASE)
        data = store.home / "devicemapper/data"
        data.rename(data.with_name("kept"))
        copy_tree(store.home / "metadata", store.home / "devicemapper/data")  # something else of that name
        with pytest.raises(CorruptRecord, match=r"does not stand on .*devicemapper/data any more"):
            store.open()
        subprocess.run(["rm", "-r", data], check=True)
        data.with_name("kept").rename(data)
        store.open()
        assert store.names(BASE) == ["of-a"]

    def test_noise_instead_of_the_pools_metadata_is_told(self, store: Store) -> None:
        store.driver.close()
        metadata = store.home / "devicemapper/metadata"
        with metadata.open("r+b") as file:
            kept = file.read(4096)
            file.seek(0)
            file.write(os.urandom(4096))
        with pytest.raises(CorruptRecord, match="does not hold the metadata of a thin pool"):
            store.open()
        with metadata.open("r+b") as file:
            file.write(kept)
        store.open()

    @pytest.mark.parametrize("running", [False, True])
    def test_larger_files_grow_and_smaller_ones_stay(self, store: Store, running: bool) -> None:
        store.layer(BASE)
        if not running:
            store.driver.close()
        store.open(loopdatasize="3G", loopmetadatasize="48M")
        rows = dict(store.driver.status())
        assert rows["Data Space Total"] == "3.221GB"
        assert rows["Metadata Space Total"] == "50.33MB"
        assert store.names(BASE) == ["of-a"]
        if not running:
            store.driver.close()
        store.open(loopdatasize="1G")
        assert dict(store.driver.status())["Data Space Total"] == "3.221GB"


class TestRoom:
    def test_too_little_free_data_refuses_new_layers(self, store: Store) -> None:
        store.layer(BASE)
        store.open(min_free_space="99%")
        with pytest.raises(StorageFull, match=r"no room for layer b+: .* free (meta)?data blocks, which is less than"):
            store.driver.create(CHILD, BASE)
        assert store.driver.cache_ids() == {BASE}
        store.open(min_free_space="0%")
        store.layer(CHILD, BASE)

    def test_a_full_pool_fails_writes_and_goes_on_when_it_has_room_again(self, tmp_path: Path) -> None:
        with a_pool(tmp_path, data_bytes=40 << 20) as name, ExitStack() as stack:
            fail_when_full(name)
            options = {"dm.fs": "ext4", "dm.basesize": "64M", "dm.mkfsarg": "-J size=4", "dm.thinpooldev": name}
            driver = DeviceMapperDriver(tmp_path / "root", options)
            stack.callback(driver.close)
            mounts = Mounts(driver)
            driver.create(BASE, None)
            driver.seal(BASE)
            driver.create(CHILD, BASE)
            with mounts.mounted(CHILD) as tree, pytest.raises(OSError, match=r"No space|Input/output|Read-only"):
                write_until_full(tree / "f")
            with pytest.raises(StorageFull, match=r"no room for layer c+: thin pool .* free data blocks"):
                driver.create(OTHER, BASE)
            assert driver.cache_ids() == {BASE, CHILD}
            driver.remove(CHILD)
            driver.create(OTHER, BASE)
            with mounts.mounted(OTHER) as tree:
                (tree / "f").write_bytes(b"fits again")
            with mounts.mounted(OTHER) as tree:
                assert (tree / "f").read_bytes() == b"fits again"


def fail_when_full(name: str) -> None:
    """Let the pool say at once that it is full, instead of after a minute."""
    mapper = DeviceMapper()
    (target,) = mapper.table(name)
    words = target.params.split()[:2]
    mapper.load(name, [Target(0, target.length, target.kind, f"{' '.join(words)} 128 0 1 error_if_no_space")])
    mapper.suspend(name)
    mapper.resume(name)
    mapper.close()


def write_until_full(place: Path) -> None:
    with place.open("wb", buffering=0) as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())


class TestStrangers:
    def test_a_pool_that_is_in_use_is_not_taken(self, tmp_path: Path) -> None:
        with on_a_pool(tmp_path / "g") as ground:
            open_on_a_pool(ground / "root").close()
            name = (ground / "pool-name").read_text()
            with pytest.raises(Conflict, match=f"unable to take ownership of thin pool {name}"):
                DeviceMapperDriver(tmp_path / "second", {**SMALL["ext4"], "dm.thinpooldev": name})

    def test_a_pool_with_another_base_is_refused_before_anything_is_changed(self, tmp_path: Path) -> None:
        (tmp_path / "two").mkdir()
        with on_a_pool(tmp_path / "one") as one, a_pool(tmp_path / "two") as name:
            driver = DeviceMapperDriver(tmp_path / "two/root", {**SMALL["ext4"], "dm.thinpooldev": name})
            driver.create(BASE, None)
            driver.close()
            records = {path.name: path.read_bytes() for path in (one / "root/devicemapper/metadata").iterdir()}
            with pytest.raises(Conflict, match="is not the one this store was made on"):
                DeviceMapperDriver(one / "root", {**SMALL["ext4"], "dm.thinpooldev": name})
            assert records == {path.name: path.read_bytes() for path in (one / "root/devicemapper/metadata").iterdir()}
            again = DeviceMapperDriver(tmp_path / "two/root", {**SMALL["ext4"], "dm.thinpooldev": name})
            assert again.cache_ids() == {BASE}
            again.close()

    def test_a_copy_of_a_store_that_is_in_use_is_refused(self, tmp_path: Path) -> None:
        with on_a_pool(tmp_path / "g") as ground:
            driver = open_on_a_pool(ground / "root")
            driver.create(BASE, None)
            copy_tree(ground / "root", ground / "copy")
            driver.attach(BASE)
            with pytest.raises(Conflict, match=r"in use by another store: its device docker-.* is active"):
                open_on_a_pool(ground / "copy")
            driver.detach(BASE)
            driver.close()

    def test_two_stores_that_change_one_pool_notice_each_other(self, tmp_path: Path) -> None:
        with on_a_pool(tmp_path / "g") as ground:
            driver = open_on_a_pool(ground / "root")
            copy_tree(ground / "root", ground / "copy")
            second = open_on_a_pool(ground / "copy")
            driver.create(BASE, None)
            with pytest.raises(Conflict, match="another store changes it at the same time"):
                second.create(CHILD, None)
            second.close()
            driver.create(CHILD, None)
            assert driver.cache_ids() == {BASE, CHILD}
            driver.close()

    def test_a_pool_that_is_not_there_or_is_none_is_named(self, tmp_path: Path, store: Store) -> None:
        with pytest.raises(NotFound, match="no thin pool nope"):
            DeviceMapperDriver(tmp_path / "d", {"dm.thinpooldev": "nope"})
        store.driver.create(BASE, None)
        store.driver.attach(BASE)
        name = store.driver.describe(BASE)["DeviceName"]
        with pytest.raises(InvalidArgument, match="is a thin, not a thin pool"):
            DeviceMapperDriver(tmp_path / "d", {"dm.thinpooldev": name})
        store.driver.detach(BASE)

    def test_a_pool_may_be_named_by_any_node(self, tmp_path: Path) -> None:
        with on_a_pool(tmp_path / "g") as ground:
            mapper = DeviceMapper()
            device = mapper.find((ground / "pool-name").read_text())
            mapper.close()
            assert device is not None
            driver = DeviceMapperDriver(ground / "root", {**SMALL["ext4"], "dm.thinpooldev": os.fspath(device.node)})
            assert dict(driver.status())["Pool Name"] == device.name
            assert "Data loop file" not in dict(driver.status())
            driver.close()
