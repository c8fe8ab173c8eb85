"""Docker's records to the byte, and every way they can be damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import CorruptRecord
from lamina.ids import CacheId
from lamina.storage.devicemapper.metadata import Metadata
from lamina.storage.devicemapper.records import (
    BASE,
    DeviceRecord,
    DeviceSet,
    Transaction,
    decode_device,
    decode_device_set,
    decode_transaction,
    device_name,
    layer_of,
)

BASE_BYTES = b'{"device_id":1,"size":10737418240,"transaction_id":1,"initialized":true,"deleted":false}'
SET_BYTES = b'{"next_device_id":1,"BaseDeviceUUID":"0051abad-3af6-4e3c-9463-93cdb87d9342","BaseDeviceFilesystem":"xfs"}'
TRANSACTION_BYTES = b'{"open_transaction_id":4,"device_hash":"abc","device_id":4}'

DAMAGED = [
    pytest.param(b"", id="empty"),
    pytest.param(bytes(80), id="zeros"),
    pytest.param(b'{"device_id":1,', id="half"),
    pytest.param(b"[1]", id="a list"),
    pytest.param(b'"text"', id="a text"),
    pytest.param(b"\xff\xfe", id="noise"),
    pytest.param(b'{"device_id":"1","size":1}', id="a text for a number"),
    pytest.param(b'{"size":1}', id="no device"),
    pytest.param(b'{"device_id":1}', id="no size"),
    pytest.param(b'{"device_id":-1,"size":1}', id="negative"),
    pytest.param(b'{"device_id":16777216,"size":1}', id="more than 24 bits"),
    pytest.param(b'{"device_id":1,"size":0}', id="size 0"),
    pytest.param(b'{"device_id":1,"size":1,"initialized":"yes"}', id="a text for a truth value"),
    pytest.param(b"{" * 100_000, id="deep"),
]


class TestBytes:
    def test_a_device(self) -> None:
        record = DeviceRecord(1, 10 << 30, 1, initialized=True)
        assert record.encode() == BASE_BYTES
        assert decode_device(BASE_BYTES, "f") == record

    def test_the_set(self) -> None:
        found = DeviceSet(1, "0051abad-3af6-4e3c-9463-93cdb87d9342", "xfs")
        assert found.encode() == SET_BYTES
        assert decode_device_set(SET_BYTES, "f") == found

    def test_a_transaction(self) -> None:
        assert Transaction(4, "abc", 4).encode() == TRANSACTION_BYTES
        assert decode_transaction(TRANSACTION_BYTES, "f") == Transaction(4, "abc", 4)

    @given(
        st.builds(
            DeviceRecord,
            st.integers(0, (1 << 24) - 1),
            st.integers(1, 1 << 60),
            st.integers(0, 1 << 60),
            st.booleans(),
            st.booleans(),
        )
    )
    def test_every_record_comes_back(self, record: DeviceRecord) -> None:
        assert decode_device(record.encode(), "f") == record

    @pytest.mark.parametrize("raw", DAMAGED)
    def test_a_damaged_device_record_is_named(self, raw: bytes) -> None:
        with pytest.raises(CorruptRecord, match="the file f is damaged"):
            decode_device(raw, "the file f")

    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b'{"open_transaction_id":"1","device_id":1}'])
    def test_a_damaged_transaction_is_named(self, raw: bytes) -> None:
        with pytest.raises(CorruptRecord, match="the file f is damaged"):
            decode_transaction(raw, "the file f")

    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"BaseDeviceUUID":1}', b'{"next_device_id":null,"x":'])
    def test_a_damaged_set_is_named(self, raw: bytes) -> None:
        with pytest.raises(CorruptRecord, match="the file f is damaged"):
            decode_device_set(raw, "the file f")


class TestNames:
    @pytest.mark.parametrize("name", ["a" * 64, "abc", "abc-init", "layer-1", "a_", "migrated"])
    def test_a_layer_is_called_by_its_id(self, name: str) -> None:
        assert device_name(CacheId(name)) == name
        assert layer_of(name) == name

    @pytest.mark.parametrize(
        ("name", "kept"),
        [
            ("base", "base_"),
            ("base_", "base__"),
            ("pool", "pool_"),
            ("transaction-metadata", "transaction-metadata_"),
            ("x.migrated", "x.migrated_"),
        ],
    )
    def test_a_name_that_is_taken_gets_another_and_comes_back(self, name: str, kept: str) -> None:
        assert device_name(CacheId(name)) == kept
        assert layer_of(kept) == name


class TestDirectory:
    def test_what_is_written_is_read_again(self, tmp_path: Path) -> None:
        metadata = Metadata(tmp_path / "m")
        record = DeviceRecord(7, 512, 3)
        metadata.write_device(BASE, DeviceRecord(1, 512, 1, initialized=True))
        metadata.write_device("abc", record)
        metadata.write_transaction(Transaction(3, "abc", 7))
        metadata.write_device_set(DeviceSet(7, "u", "ext4"))
        assert sorted(os.listdir(tmp_path / "m")) == ["abc", "base", "deviceset-metadata", "transaction-metadata"]
        assert {path.stat().st_mode & 0o7777 for path in (tmp_path / "m").iterdir()} == {0o600}
        found, damaged = Metadata(tmp_path / "m").load()
        assert found == {BASE: DeviceRecord(1, 512, 1, initialized=True), "abc": record}
        assert damaged == {}
        assert metadata.transaction() == Transaction(3, "abc", 7)
        assert metadata.device_set() == DeviceSet(7, "u", "ext4")

    def test_what_a_crash_left_goes_and_what_dockerd_skips_is_skipped(self, tmp_path: Path) -> None:
        metadata = Metadata(tmp_path)
        for name in (".tmp123", ".tmp-abc99", ".hidden", "json.migrated"):
            (tmp_path / name).write_bytes(b"rubbish")
        assert metadata.load() == ({}, {})
        assert sorted(os.listdir(tmp_path)) == [".hidden", "json.migrated"]

    def test_nothing_is_there_at_first(self, tmp_path: Path) -> None:
        metadata = Metadata(tmp_path)
        assert metadata.transaction() is None
        assert metadata.device_set() is None
        metadata.forget_device("nobody")
        metadata.forget_transaction()

    def test_each_kind_of_damage_is_named_and_the_others_are_read(self, tmp_path: Path) -> None:
        metadata = Metadata(tmp_path)
        metadata.write_device("good", DeviceRecord(2, 512, 2))
        (tmp_path / "cut").write_bytes(b'{"device_id":3,"si')
        (tmp_path / "empty").touch()
        (tmp_path / "directory").mkdir()
        (tmp_path / "link").symlink_to("good")
        os.mkfifo(tmp_path / "fifo")
        found, damaged = metadata.load()
        assert list(found) == ["good"]
        assert sorted(damaged) == ["cut", "directory", "empty", "fifo", "link"]
        assert all(os.fspath(tmp_path / name) in words for name, words in damaged.items())

    def test_two_records_of_one_device_are_both_wrong(self, tmp_path: Path) -> None:
        metadata = Metadata(tmp_path)
        for name, device in (("one", 5), ("two", 5), ("other", 6)):
            metadata.write_device(name, DeviceRecord(device, 512, 2))
        found, damaged = metadata.load()
        assert list(found) == ["other"]
        assert sorted(damaged) == ["one", "two"]
        assert "names the same device as" in damaged["one"]

    @pytest.mark.parametrize("name", ["transaction-metadata", "deviceset-metadata"])
    def test_a_link_in_the_place_of_a_record_is_not_followed(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "elsewhere").write_bytes(TRANSACTION_BYTES)
        (tmp_path / name).symlink_to("elsewhere")
        metadata = Metadata(tmp_path)
        with pytest.raises(CorruptRecord, match=name):
            metadata.transaction() if name.startswith("trans") else metadata.device_set()
