"""The states that a killed daemon leaves, and a power cut that took the last write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lamina.ids import CacheId
from lamina.kernel.devicemapper import DeviceMapper
from lamina.storage.devicemapper.pool import parse_status
from lamina.storage.devicemapper.records import DeviceRecord
from tests.unit.storage.devicemapper.stores import BASE, CHILD, Store, store_at

pytestmark = [pytest.mark.root, pytest.mark.vm_guest("devicemapper")]


class TestAfterACrash:
    """The states that a daemon killed between two steps leaves, and a power cut that took the last write."""

    def test_a_creation_that_got_as_far_as_the_pool_is_undone(self, store: Store) -> None:
        store.layer(BASE)
        number = store.transaction() + 1
        store.write_transaction(number, CHILD, 9)
        store.message("create_snap 9 2")
        store.open()
        assert not store.has_device(9)
        assert store.driver.cache_ids() == {BASE}
        store.layer(CHILD, BASE)
        assert store.names(CHILD) == ["of-a", "of-b"]

    def test_a_creation_that_got_as_far_as_the_record_is_undone(self, store: Store) -> None:
        store.layer(BASE)
        number = store.transaction() + 1
        store.write_transaction(number, CHILD, 9)
        store.message("create_snap 9 2")
        store.record(CHILD).write_bytes(DeviceRecord(9, 96 << 20, number).encode())
        store.open()
        assert store.driver.cache_ids() == {BASE}
        assert not store.has_device(9)
        assert not store.record(CHILD).exists()

    def test_a_creation_that_got_no_further_than_the_transaction_is_forgotten(self, store: Store) -> None:
        store.layer(BASE)
        store.write_transaction(store.transaction() + 1, CHILD, 9)
        store.open()
        assert store.driver.cache_ids() == {BASE}
        assert store.names(BASE) == ["of-a"]

    def test_a_deletion_is_finished(self, store: Store) -> None:
        store.layer(BASE)
        store.layer(CHILD, BASE)
        device = int(store.driver.describe(CHILD)["DeviceId"])
        store.write_transaction(store.transaction() + 1, CHILD, device)
        store.let_go()
        store.message(f"delete {device}")
        store.open()
        assert store.driver.cache_ids() == {BASE}
        assert not store.record(CHILD).exists()

    def test_a_finished_deletion_whose_record_came_back_is_noticed(self, store: Store) -> None:
        store.layer(BASE)
        store.layer(CHILD, BASE)
        kept = store.record(CHILD).read_bytes()
        store.driver.remove(CHILD)
        store.record(CHILD).write_bytes(kept)
        store.open()
        assert store.driver.cache_ids() == {BASE}
        assert not store.record(CHILD).exists()

    def test_a_finished_creation_whose_record_is_lost_leaves_no_device(self, store: Store) -> None:
        store.layer(BASE)
        store.driver.create(CHILD, BASE)
        device = int(store.driver.describe(CHILD)["DeviceId"])
        store.record(CHILD).unlink()
        store.open()
        assert store.driver.cache_ids() == {BASE}
        assert not store.has_device(device)

    def test_devices_left_active_or_suspended_are_cleaned(self, store: Store) -> None:
        store.layer(BASE)
        prefix = store.pool.removesuffix("-pool")
        store.driver.attach(BASE)
        store.mapper.suspend(f"{prefix}-{BASE}")
        store.mapper.suspend(store.pool)
        store.open()
        assert [name for name in store.mapper.names() if name.startswith(prefix)] == [store.pool]
        assert store.names(BASE) == ["of-a"]

    def test_what_is_mounted_stays_and_is_found(self, store: Store) -> None:
        store.layer(BASE)
        store.driver.create(CHILD, BASE)
        tree = store.mounts.acquire(CHILD)
        (tree / "late").write_text("x")
        store.open()
        assert (tree / "late").read_text() == "x"
        store.mounts.release(CHILD)
        assert store.names(CHILD) == ["late", "of-a"]

    def test_a_first_start_that_was_cut_off_is_begun_again(self, tmp_path: Path) -> None:
        files = tmp_path / "root/devicemapper/devicemapper"
        files.mkdir(parents=True)
        with (files / "data").open("wb") as data:
            data.truncate(2 << 30)
        (files / "metadata").touch()
        store = Store(tmp_path / "root")
        name = store.pool
        store.layer(BASE)
        store.close()
        mapper = DeviceMapper()
        mapper.create_empty(name)
        store = Store(tmp_path / "root")
        assert store.names(BASE) == ["of-a"]
        store.close()
        mapper.close()

    def test_an_unfinished_base_is_made_again(self, tmp_path: Path) -> None:
        with store_at(tmp_path / "g") as store:
            store.record("base").write_bytes(DeviceRecord(1, 96 << 20, 1).encode())
            store.open()
            assert b'"initialized":true' in store.record("base").read_bytes()
            store.layer(BASE)
            assert store.names(BASE) == ["of-a"]

    def test_killed_anywhere_nothing_acknowledged_is_lost(self, store: Store, tmp_path: Path) -> None:
        script = tmp_path / "child.py"
        script.write_text(CHURN)
        for delay in (0.35, 0.5, 0.8):
            acknowledged: dict[str, bool] = {}
            with subprocess.Popen(
                [sys.executable, script, store.root, *(f"{k}={v}" for k, v in store.options.items())],
                stdout=subprocess.PIPE,
                text=True,
            ) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == "open\n"
                with pytest.raises(subprocess.TimeoutExpired):
                    child.wait(delay)
                child.kill()
                pending = ""
                for line in child.stdout.read().splitlines():
                    word, _, name = line.partition(" ")
                    pending = "" if word in {"made", "gone"} else name
                    if word in {"made", "gone"}:
                        acknowledged[name] = word == "made"
            store.open()
            expected = {name for name, there in acknowledged.items() if there}
            assert store.driver.cache_ids() - {pending} == expected - {pending}
            for name in store.driver.cache_ids():
                store.names(CacheId(name))
                store.driver.seal(CacheId(name), durable=False)
            for name in sorted(store.driver.cache_ids(), reverse=True):
                store.driver.remove(CacheId(name))
            used = parse_status(store.mapper.status(store.pool)[0].params).metadata_used
            assert store.driver.cache_ids() == frozenset()
            assert not [number for number in range(2, 40) if store.has_device(number)]
            assert used > 0


CHURN = """
import itertools, sys
from pathlib import Path
from lamina.ids import CacheId
from lamina.storage.devicemapper.driver import DeviceMapperDriver
driver = DeviceMapperDriver(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:]))
print("open", flush=True)
parent = None
for number in itertools.count():
    name = CacheId(f"layer-{number:04}")
    print("making", name, flush=True)
    driver.create(name, parent)
    print("made", name, flush=True)
    driver.seal(name, durable=False)
    if number % 3 == 2:
        print("removing", name, flush=True)
        driver.remove(name)
        print("gone", name, flush=True)
    else:
        parent = name
"""
