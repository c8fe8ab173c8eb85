import tarfile

import pytest

from lamina.changeset.entry import Entry
from lamina.changeset.tarcodec import TarReader
from lamina.errors import InvalidArgument, LaminaError, UnsafeArchive

from .test_tarcodec import header, pax_block, resum


def records(**found: str) -> bytes:
    body = b""
    for key, value in found.items():
        record = f" {key.replace('_', '.')}={value}\n".encode()
        size = len(record) + 1
        while len(f"{size}") + len(record) != size:
            size += 1
        body += b"%d%b" % (size, record)
    return pax_block(body)


def pax_1(map_text: bytes, data: bytes, real: int) -> bytes:
    body = map_text + bytes(-len(map_text) % 512) + data
    head = records(GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_name="sparse", GNU_sparse_realsize=str(real))
    return head + header(name="GNUSparseFile.0/sparse", size=len(body)) + body + bytes(-len(body) % 512)


def first(data: bytes) -> tuple[Entry, bytes]:
    reader = TarReader(iter([data]))
    entry = reader.next_entry()
    assert entry is not None
    return entry, b"".join(bytes(piece) for piece in reader.pieces())


def test_pax_1_0_maps_are_read() -> None:
    entry, body = first(pax_1(b"2\n1024\n512\n8192\n3\n", b"A" * 512 + b"end", 9000))
    assert entry.name == b"sparse"
    assert entry.segments == ((1024, 512), (8192, 3))
    assert (entry.size_bytes, entry.stored_bytes, entry.is_sparse) == (9000, 515, True)
    assert body == b"A" * 512 + b"end"


def test_pax_0_1_maps_are_read() -> None:
    head = records(GNU_sparse_size="5000", GNU_sparse_numblocks="1", GNU_sparse_map="4096,4")
    entry, body = first(head + header(name="s", size=4) + b"data" + bytes(508))
    assert (entry.segments, entry.size_bytes, body) == (((4096, 4),), 5000, b"data")


def test_old_gnu_maps_are_read() -> None:
    block = bytearray(header(name="s", size=4))
    block[156:157] = b"S"
    block[386:410] = b"00000010000\0" + b"00000000004\0"
    block[483:495] = b"00000020000\0"
    entry, body = first(resum(block) + b"data" + bytes(508))
    assert (entry.segments, entry.size_bytes, body) == (((4096, 4),), 8192, b"data")


def test_a_sparse_archive_made_by_gnu_tar_reads_like_tarfile_does() -> None:
    data = pax_1(b"1\n0\n4\n", b"head", 4)
    assert tarfile.TarInfo.frombuf(data[1024:1536], "utf-8", "strict").name == "GNUSparseFile.0/sparse"
    assert first(data)[1] == b"head"


@pytest.mark.parametrize(
    ("map_text", "error"),
    [
        (b"1\n0\n999\n", InvalidArgument),
        (b"2\n10\n2\n0\n2\n", InvalidArgument),
        (b"1\n9999\n4\n", InvalidArgument),
        (b"x\n0\n4\n", InvalidArgument),
        (b"1\n-1\n4\n", InvalidArgument),
        (b"99999999999\n", UnsafeArchive),
        (b"7" * 600 + b"\n", LaminaError),
    ],
)
def test_a_map_that_does_not_fit_is_refused(map_text: bytes, error: type[LaminaError]) -> None:
    with pytest.raises(error):
        first(pax_1(map_text, b"data", 9000))


def test_a_map_without_end_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(LaminaError):
        first(pax_1(b"90000\n" + b"1" * 2_000_000, b"", 9000))
