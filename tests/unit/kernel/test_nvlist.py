from __future__ import annotations

import ctypes
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.errors import CorruptRecord
from lamina.kernel.nvlist import Kind, NvList, decode, encode

NAMES = st.text(st.characters(min_codepoint=1, max_codepoint=0x7F), min_size=1, max_size=20)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 2**64 - 1), NAMES),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
LISTS = st.dictionaries(NAMES, VALUES, max_size=5)

PROPERTIES = bytes.fromhex(
    "01010000"  # XDR, from a little-endian machine
    "00000000" "00000001"  # version, names are unique
    "0000002c" "00000028" "0000000a" "6d6f756e74706f696e740000" "00000009" "00000001"  # mountpoint, a string
    "00000006" "6c65676163790000"  # legacy
    "00000024" "00000020" "00000005" "71756f7461000000" "00000008" "00000001"  # quota, 64 bits
    "0000000000001000"
    "00000000" "00000000"
)  # fmt: skip


def pair(name: str, kind: int, count: int, value: bytes) -> bytes:
    text = name.encode()
    body = struct.pack(">I", len(text)) + text + b"\0" * (-len(text) % 4) + struct.pack(">ii", kind, count) + value
    return struct.pack(">ii", len(body) + 8, 0) + body


def a_list(*pairs: bytes) -> bytes:
    return b"\x01\x01\0\0" + struct.pack(">iI", 0, 1) + b"".join(pairs) + b"\0" * 8


def test_a_list_is_what_the_library_writes() -> None:
    assert encode({"mountpoint": "legacy", "quota": 4096}).hex() == PROPERTIES.hex()
    assert decode(PROPERTIES) == {"mountpoint": "legacy", "quota": 4096}


@given(LISTS)
def test_what_is_written_is_read(values: NvList) -> None:
    assert decode(encode(values)) == values


@pytest.mark.vm_guest("zfs")
@settings(max_examples=20, deadline=None)
@given(LISTS)
def test_the_library_agrees(values: NvList) -> None:
    pairs = ctypes.CDLL("libnvpair.so.3")
    data = encode(values)
    made, buffer, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
    assert pairs.nvlist_unpack(data, ctypes.c_size_t(len(data)), ctypes.byref(made), 0) == 0
    assert pairs.nvlist_pack(made, ctypes.byref(buffer), ctypes.byref(size), 1, 0) == 0
    assert decode(ctypes.string_at(buffer, size.value)) == values
    pairs.nvlist_free(made)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (pair("n", Kind.INT64, 1, struct.pack(">q", -5)), -5),
        (pair("n", Kind.INT32, 1, struct.pack(">i", -16)), -16),
        (pair("n", Kind.UINT8, 1, struct.pack(">I", 255)), 255),
        (pair("n", Kind.BYTE_ARRAY, 3, b"abc\0"), b"abc"),
        (pair("n", Kind.UINT64_ARRAY, 2, struct.pack(">IQQ", 2, 1, 2**63)), [1, 2**63]),
        (pair("n", Kind.STRING_ARRAY, 2, struct.pack(">I4sI4s", 1, b"a\0\0\0", 2, b"bc\0\0")), ["a", "bc"]),
    ],
)
def test_kinds_that_only_come_out(written: bytes, expected: object) -> None:
    assert decode(a_list(written)) == {"n": expected}


def test_names_that_are_not_utf8_survive() -> None:
    assert decode(encode({"\udcff": "\udcfe"})) == {"\udcff": "\udcfe"}


@pytest.mark.parametrize("value", [-1, 2**64, "a\0b", object()])
def test_what_does_not_fit_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        encode({"n": value})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\0\1\0\0",
        PROPERTIES[:-4],
        PROPERTIES[:30],
        PROPERTIES.replace(b"\0\0\0\x06legacy", b"\0\1\0\x06legacy"),
        a_list(pair("n", Kind.NVLIST_ARRAY, 1, b"")),
        a_list(pair("n", 99, 1, b"")),
        a_list(pair("n", Kind.BYTE_ARRAY, -1, b"")),
        a_list(pair("n", Kind.UINT64_ARRAY, 1, struct.pack(">I", 2**31))),
    ],
)
def test_damaged_lists_are_told(damaged: bytes) -> None:
    with pytest.raises(CorruptRecord):
        decode(damaged)


def test_lists_nested_without_end_are_told() -> None:
    values: NvList = {}
    for _ in range(40):
        values = {"n": values}
    with pytest.raises(CorruptRecord, match="too deep"):
        decode(encode(values))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_damaged(data: bytes) -> None:
    try:
        assert isinstance(decode(b"\x01\x01\0\0" + data), dict)
    except CorruptRecord as error:
        assert "name-value list" in str(error)  # noqa: PT017 - either is fine
