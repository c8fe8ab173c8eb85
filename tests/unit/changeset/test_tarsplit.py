import hashlib
import json
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.changeset.tarcodec import TarReader
from lamina.changeset.tarsplit import TarSplitWriter, crc_of, parse_lines
from lamina.errors import CorruptRecord, InvalidArgument, LaminaError

from .tars import LAYER_1, LAYER_2, SPLIT_1, SPLIT_2


def split(tar: bytes) -> bytes:
    reader, writer = TarReader(iter([tar])), TarSplitWriter()
    packed = b""
    while (entry := reader.next_entry()) is not None:
        writer.raw(reader.take_framing())
        body = reader.whole_body()
        assert body is not None
        writer.file(entry.name, entry.size_bytes, crc_of(body))
        packed += writer.take()
    writer.raw(reader.take_framing())
    for rest in reader.rest():
        writer.raw(rest)
    return packed + writer.finish()


def lines(text: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


@pytest.mark.parametrize(("tar", "digest"), [(LAYER_1, SPLIT_1), (LAYER_2, SPLIT_2)])
def test_the_record_is_dockerds_to_the_byte(tar: bytes, digest: str) -> None:
    packed = split(tar)
    assert hashlib.sha256(zlib.decompress(packed, 31)).hexdigest() == digest
    assert packed[:4] == b"\x1f\x8b\x08\x00"


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"hello\n", 0x614C3EEEE2D81000),
        (b"A" * 600, 0x47C5166A0B166AB9),
        (b"C" * 513, 0xD41471C888888888),
        (b"123456789", 0xB90956C775A41001),
    ],
)
def test_the_crc_is_gos_and_may_be_taken_in_pieces(data: bytes, crc: int) -> None:
    assert crc_of(data) == crc
    assert crc_of(data[4:], crc_of(data[:4])) == crc
    assert crc_of(data, crc_of(b"")) == crc


def test_the_lines_are_those_of_the_format_description() -> None:
    found = [json.loads(line) for line in zlib.decompress(split(LAYER_1), 31).splitlines()]
    assert [line["position"] for line in found] == list(range(17))
    assert [line.get("name") for line in found if line["type"] == 1] == [
        "etc/", "etc/hello", "data/", "data/a", "data/b", "data/b2", "data/l",
    ]  # fmt: skip
    assert found[-1] == {"type": 2, "payload": "", "position": 16}
    assert found[5]["payload"] is None


def test_a_name_may_come_once_however_it_is_spelled() -> None:
    for second in (b"f", b"./f", b"f/", b"a/../f", b"f/."):
        writer = TarSplitWriter()
        writer.file(b"f", 0, 0)
        with pytest.raises(InvalidArgument, match="duplicates of file paths not supported"):
            writer.file(second, 0, 0)
    writer = TarSplitWriter()
    for name in (b"f", b"/f", b".f", b"f.", b"g/f", b"..f"):
        writer.file(name, 0, 0)


@given(st.binary(max_size=40), st.integers(0, 10_000), st.integers(0, (1 << 64) - 1), st.binary(max_size=2000))
def test_lines_come_back_as_they_were_written(name: bytes, size: int, crc: int, raw: bytes) -> None:
    writer = TarSplitWriter()
    writer.raw(raw)
    writer.file(name, size, crc)
    text = zlib.decompress(writer.finish(), 31)
    for line in text.splitlines():
        json.loads(line)
    found = list(parse_lines(lines(text, 17)))
    assert b"".join(segment.raw for segment in found) == raw
    (file,) = [segment for segment in found if segment.name is not None]
    assert (file.name, file.size_bytes) == (name, size)
    assert file.crc == (crc if size else 0)


def test_names_are_escaped_as_go_does_and_kept_raw_when_not_utf8() -> None:
    writer = TarSplitWriter()
    writer.file('a<b>&\u2028ü"\\\t'.encode(), 0, 0)
    writer.file(b"caf\xe9", 0, 0)
    first, second, _ = zlib.decompress(writer.finish(), 31).splitlines()
    assert r"a\u003cb\u003e\u0026\u2028ü" in first.decode()
    assert json.loads(second) == {"type": 1, "name_raw": "Y2Fm6Q==", "payload": None, "position": 1}


def test_large_raw_bytes_are_cut_into_lines_of_a_megabyte() -> None:
    writer = TarSplitWriter()
    writer.raw(bytes((2 << 20) + 1))
    found = list(parse_lines(iter([zlib.decompress(writer.finish(), 31)])))
    assert [len(segment.raw) for segment in found] == [1 << 20, 1 << 20, 1, 0]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b'{"type":3}',
        b'{"type":1,"name":5}',
        b'{"type":2,"payload":"*"}',
        b"[]",
        b'{"type":1,"size":"x"}',
        b"{}",
    ],
)
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(CorruptRecord):
        list(parse_lines(iter([line + b"\n"])))


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(CorruptRecord, match="8 MiB"):
        list(parse_lines(iter([b"x" * (1 << 20)] * 20)))


@given(st.binary(max_size=300))
def test_rubbish_ends_in_our_error_only(noise: bytes) -> None:
    try:
        list(parse_lines(iter([noise])))
    except LaminaError:
        return
