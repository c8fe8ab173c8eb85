from __future__ import annotations

import struct
from pathlib import Path

import pytest

from lamina.errors import CorruptRecord
from lamina.kernel.dm_ioctl import Target
from lamina.storage.devicemapper.pool import PoolStatus, ThinSuperblock, parse_status, pool_table, read_thin_superblock


def test_the_status_dockerd_had_is_read() -> None:
    line = "4 4251/524288 1195/1638400 - rw discard_passdown queue_if_no_space - 1024 "
    assert parse_status(line) == PoolStatus(4, 4251, 524288, 1195, 1638400, "rw", needs_check=False)


def test_a_full_pool_says_so() -> None:
    found = parse_status("9 1/2 8/8 - out_of_data_space discard_passdown error_if_no_space needs_check 1024")
    assert (found.mode, found.needs_check, found.data_used) == ("out_of_data_space", True, 8)


@pytest.mark.parametrize("line", ["Fail", "Error", "", "4 1/2", "x y z a b c"])
def test_a_pool_that_was_given_up_is_an_error_with_a_remedy(line: str) -> None:
    with pytest.raises(CorruptRecord, match="given the thin pool up") as caught:
        parse_status(line)
    assert "thin_repair" in caught.value.hint


def test_the_table_is_dockers() -> None:
    assert pool_table("7:1", "7:0", 209715200, 128) == [
        Target(0, 209715200, "thin-pool", "7:1 7:0 128 32768 1 skip_block_zeroing")
    ]


def superblock(*, magic: int = 27022010, flags: int = 0, transaction: int = 3, block: int = 128) -> bytes:
    made = bytearray(4096)
    struct.pack_into("<I", made, 0, 0xDEADBEEF)
    struct.pack_into("<I", made, 4, flags)
    struct.pack_into("<Q", made, 32, magic)
    struct.pack_into("<Q", made, 48, transaction)
    struct.pack_into("<I", made, 336, block)
    return bytes(made)


def test_the_metadata_device_tells_its_block_size(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(superblock(transaction=12, block=1024))
    assert read_thin_superblock(tmp_path / "m") == ThinSuperblock(12, 1024, needs_check=False)


def test_a_needed_check_is_seen(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(superblock(flags=1))
    found = read_thin_superblock(tmp_path / "m")
    assert found is not None
    assert found.needs_check


def test_an_empty_device_has_none(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(bytes(1 << 16))
    assert read_thin_superblock(tmp_path / "m") is None


@pytest.mark.parametrize("raw", [superblock(magic=1), b"x" * 4096, b"x"])
def test_anything_else_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m").write_bytes(raw)
    with pytest.raises(CorruptRecord, match="does not hold the metadata of a thin pool"):
        read_thin_superblock(tmp_path / "m")
