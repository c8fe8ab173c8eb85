import bz2
import gzip
import lzma
import random
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lamina.changeset.compression import Compression, StreamLimits, decompressed, gzipped, sniff
from lamina.errors import DataLoss, InvalidArgument, UnsafeArchive

PLAIN = random.Random(1).randbytes(70_000) + b"layer" * 100_000
PACKERS = {
    Compression.NONE: lambda data: data,
    Compression.GZIP: gzip.compress,
    Compression.ZSTD: lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    Compression.BZIP2: bz2.compress,
    Compression.XZ: lzma.compress,
}


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def plain(data: bytes, size: int = 4096, limits: StreamLimits | None = None) -> bytes:
    return b"".join(decompressed(cut(data, size), limits or StreamLimits()))


@pytest.mark.parametrize("compression", PACKERS)
@pytest.mark.parametrize("size", [1, 7, 4096, 10_000_000])
def test_every_compression_is_recognised_and_undone_whatever_the_chunks(compression: Compression, size: int) -> None:
    data = PLAIN if size > 100 else PLAIN[69_000:71_000]
    packed = PACKERS[compression](data)
    assert sniff(packed[:6]) is compression
    assert plain(packed, size) == data


@pytest.mark.parametrize("compression", [c for c in PACKERS if c is not Compression.NONE])
def test_members_and_frames_are_joined(compression: Compression) -> None:
    packed = PACKERS[compression](b"one ") + PACKERS[compression](b"") + PACKERS[compression](b"two")
    assert plain(packed, 3) == b"one two"


def test_zero_padding_after_the_last_member_is_fine_and_rubbish_is_not() -> None:
    packed = gzip.compress(b"layer")
    assert plain(packed + bytes(700)) == b"layer"
    with pytest.raises(InvalidArgument):
        plain(packed + b"rubbish that is no gzip member")


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.BZIP2, Compression.XZ])
def test_a_stream_that_ends_in_the_middle_is_data_loss(compression: Compression) -> None:
    packed = PACKERS[compression](PLAIN)
    with pytest.raises(DataLoss, match="ends in the middle"):
        plain(packed[:-5])


@pytest.mark.parametrize("compression", [c for c in PACKERS if c is not Compression.NONE])
def test_a_damaged_stream_is_refused(compression: Compression) -> None:
    packed = bytearray(PACKERS[compression](PLAIN))
    for at in range(20, len(packed), 5000):
        packed[at] ^= 0xFF
    with pytest.raises((InvalidArgument, DataLoss)):
        plain(bytes(packed))


def test_a_wrong_gzip_checksum_is_noticed() -> None:
    packed = bytearray(gzip.compress(PLAIN))
    packed[-8] ^= 1
    with pytest.raises(InvalidArgument):
        plain(bytes(packed))


@pytest.mark.parametrize("compression", [c for c in PACKERS if c is not Compression.NONE])
def test_a_bomb_is_stopped_by_its_ratio(compression: Compression) -> None:
    packed = PACKERS[compression](bytes(64 << 20))
    with pytest.raises(UnsafeArchive, match="bomb"):
        plain(packed, limits=StreamLimits(free_bytes=8 << 20, ratio=200))


def test_a_small_stream_of_zeros_is_no_bomb() -> None:
    assert len(plain(gzip.compress(bytes(8 << 20)))) == 8 << 20


def test_more_than_the_limit_does_not_come_out() -> None:
    pieces: list[int] = []
    stream = decompressed(cut(gzip.compress(bytes(32 << 20)), 4096), StreamLimits(output_bytes=4 << 20))
    with pytest.raises(UnsafeArchive):
        pieces.extend(len(piece) for piece in stream)
    assert sum(pieces) <= 4 << 20
    assert max(pieces) <= 1 << 20


def test_an_empty_stream_is_empty() -> None:
    assert plain(b"") == b""
    assert sniff(b"") is Compression.NONE


@given(st.binary(max_size=5000), st.integers(1, 600))
def test_gzipped_is_undone_by_zlib_and_by_us(data: bytes, size: int) -> None:
    packed = b"".join(gzipped(cut(data, size)))
    assert zlib.decompress(packed, 31) == data
    assert plain(packed, size) == data
    assert packed[4:8] == bytes(4)
    assert packed == b"".join(gzipped(iter([data])))
