"""Name-value lists, the language of /dev/zfs, as bytes in XDR (pure).

A list is a dictionary. On the way in: `None` is a bare name (DATA_TYPE_BOOLEAN), `bool` a boolean value, `int` an
unsigned 64-bit number, `str` a string, a dictionary a list inside. On the way out signed and short numbers and arrays
are understood too. Names and texts are ASCII in ZFS' own lists; other bytes are kept as surrogate escapes.

Source: OpenZFS module/nvpair/nvpair.c (nvs_xdr_nvpair), include/sys/nvpair.h; RFC 4506.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from lamina.errors import CorruptRecord

NvValue: TypeAlias = "bool | int | str | bytes | list[int] | list[str] | NvList | None"
NvList: TypeAlias = "dict[str, NvValue]"

_HEADER = b"\x01\x01\0\0"  # XDR, written on a little-endian machine
_UNIQUE_NAMES = 1
_END = b"\0" * 8
_DEEPEST = 32
_PAIR_BYTES = 16  # sizeof(nvpair_t)
_LIST_BYTES = 24  # sizeof(nvlist_t)


class Kind(IntEnum):
    """`data_type_t`, as far as ZFS uses it towards programs."""

    BOOLEAN = 1
    BYTE = 2
    INT16 = 3
    UINT16 = 4
    INT32 = 5
    UINT32 = 6
    INT64 = 7
    UINT64 = 8
    STRING = 9
    BYTE_ARRAY = 10
    INT32_ARRAY = 13
    UINT32_ARRAY = 14
    INT64_ARRAY = 15
    UINT64_ARRAY = 16
    STRING_ARRAY = 17
    NVLIST = 19
    NVLIST_ARRAY = 20
    BOOLEAN_VALUE = 21
    INT8 = 22
    UINT8 = 23


# XDR has nothing shorter than four bytes.
_NUMBERS = {
    Kind.BYTE: ">I",
    Kind.INT8: ">i",
    Kind.UINT8: ">I",
    Kind.INT16: ">i",
    Kind.UINT16: ">I",
    Kind.INT32: ">i",
    Kind.UINT32: ">I",
    Kind.INT64: ">q",
    Kind.UINT64: ">Q",
}
_ARRAYS = {
    Kind.INT32_ARRAY: "i",
    Kind.UINT32_ARRAY: "I",
    Kind.INT64_ARRAY: "q",
    Kind.UINT64_ARRAY: "Q",
}


def encode(values: Mapping[str, NvValue]) -> bytes:
    """The list as `nvlist_unpack` takes it.

    Raises:
        ValueError: a number that is negative or has more than 64 bits, a text with a zero in it.
    """
    return _HEADER + _encoded_list(values)


def decode(data: bytes) -> NvList:
    """The list that `nvlist_pack` wrote with NV_ENCODE_XDR.

    Raises:
        CorruptRecord: the bytes are no such list.
    """
    if len(data) < len(_HEADER) or data[0] != _HEADER[0]:
        raise CorruptRecord("a name-value list has an unknown encoding")
    try:
        return _decoded_list(_Reader(data, len(_HEADER)), _DEEPEST)
    except (struct.error, ValueError, IndexError) as error:
        raise CorruptRecord(f"a name-value list is damaged: {error}") from error


def _encoded_list(values: Mapping[str, NvValue]) -> bytes:
    parts = [struct.pack(">iI", 0, _UNIQUE_NAMES)]
    parts += [_encoded_pair(name, value) for name, value in values.items()]
    return b"".join((*parts, _END))


def _encoded_pair(name: str, value: NvValue) -> bytes:
    kind, count, data, memory_bytes = _encoded_value(value)
    name_bytes = _text_bytes(name)
    body = _string(name_bytes) + struct.pack(">ii", kind, count) + data
    # The second number is what the pair takes in memory once unpacked; the reader checks it.
    in_memory = _aligned(_PAIR_BYTES + len(name_bytes) + 1) + _aligned(memory_bytes)
    return struct.pack(">ii", 8 + len(body), in_memory) + body


def _encoded_value(value: NvValue) -> tuple[Kind, int, bytes, int]:
    """Kind, number of elements, XDR bytes and bytes in memory."""
    if value is None:
        return Kind.BOOLEAN, 0, b"", 0
    if isinstance(value, bool):
        return Kind.BOOLEAN_VALUE, 1, struct.pack(">i", value), 4
    if isinstance(value, int):
        if not 0 <= value < 1 << 64:
            raise ValueError(f"{value} is no unsigned 64-bit number")
        return Kind.UINT64, 1, struct.pack(">Q", value), 8
    if isinstance(value, str):
        text = _text_bytes(value)
        return Kind.STRING, 1, _string(text), len(text) + 1
    if isinstance(value, Mapping):
        return Kind.NVLIST, 1, _encoded_list(value), _LIST_BYTES
    raise ValueError(f"a {type(value).__name__} cannot be put into a name-value list")


def _text_bytes(text: str) -> bytes:
    found = text.encode("utf-8", "surrogateescape")
    if b"\0" in found:
        raise ValueError("a text in a name-value list cannot hold a zero")
    return found


def _string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text + b"\0" * (-len(text) % 4)


def _aligned(size: int) -> int:
    return (size + 7) & ~7


@dataclass(slots=True)
class _Reader:
    """A place in the bytes."""

    data: bytes
    at: int

    def number(self, form: str) -> int:
        (found,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return int(found)

    def bytes(self, length: int) -> bytes:
        if length < 0 or self.at + length > len(self.data):
            raise ValueError(f"{length} bytes are announced at {self.at}, past the end")
        found = self.data[self.at : self.at + length]
        self.at += length + -length % 4
        return found

    def string(self) -> str:
        return self.bytes(self.number(">I")).decode("utf-8", "surrogateescape")


def _decoded_list(reader: _Reader, depth: int) -> NvList:
    if depth == 0:
        raise ValueError("lists are nested too deep")
    reader.number(">i")  # version
    reader.number(">I")  # flags
    found: NvList = {}
    while True:
        encoded_bytes = reader.number(">i")
        reader.number(">i")  # what the pair takes in memory
        if encoded_bytes == 0:
            return found
        end = reader.at - 8 + encoded_bytes
        name = reader.string()
        kind, count = Kind(reader.number(">i")), reader.number(">i")
        found[name] = _decoded_value(reader, kind, count, depth)
        if reader.at != end:
            raise ValueError(f"the pair {name!r} has another length than announced")


def _decoded_value(reader: _Reader, kind: Kind, count: int, depth: int) -> NvValue:
    if kind is Kind.BOOLEAN:
        return None
    if kind is Kind.BOOLEAN_VALUE:
        return reader.number(">i") != 0
    if kind in _NUMBERS:
        return reader.number(_NUMBERS[kind])
    if kind is Kind.STRING:
        return reader.string()
    if kind is Kind.NVLIST:
        return _decoded_list(reader, depth - 1)
    if kind is Kind.BYTE_ARRAY:
        return reader.bytes(count)
    if kind is Kind.STRING_ARRAY:
        return [reader.string() for _ in range(count)]
    if kind in _ARRAYS:
        length = reader.number(">I")  # xdr_array says it once more
        form = f">{length}{_ARRAYS[kind]}"
        return list(struct.unpack(form, reader.bytes(struct.calcsize(form))))
    raise ValueError(f"pairs of kind {kind.name} are not expected here")
