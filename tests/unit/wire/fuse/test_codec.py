"""Requests and replies of FUSE: what is packed as the kernel packs it comes out as it went in."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.wire.fuse import opcodes, replies, requests

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
names = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name and b"/" not in name)


def request(body: bytes) -> tuple[bytearray, int]:
    """A request as it lies in a buffer that is larger, with an older request's bytes behind it."""
    length = requests.BODY + len(body)
    return bytearray(requests.HEADER.pack(length, 1, 2, 3, 4, 5, 6, 0, 0) + body + b"\xffleft over\0"), length


@given(names, names)
def test_names_end_at_their_zero_byte(first: bytes, second: bytes) -> None:
    assert requests.name(*request(first + b"\0")) == first
    assert requests.names(*request(first + b"\0" + second + b"\0")) == (first, second)


@given(names)
def test_a_name_without_end_is_refused(name: bytes) -> None:
    with pytest.raises(requests.RequestError):
        requests.name(*request(name))


@given(u64, u32, names, names)
def test_a_rename_comes_apart(parent: int, flags: int, old: bytes, new: bytes) -> None:
    body = struct.pack("<QII", parent, flags, 0) + old + b"\0" + new + b"\0"
    assert requests.rename2(*request(body)) == (parent, flags, old, new)


@given(u64, u64, u32, u32, st.binary(max_size=100))
def test_a_write_says_where_its_bytes_are(fh: int, offset: int, size: int, flags: int, data: bytes) -> None:
    buffer, length = request(struct.pack("<QQIIQII", fh, offset, size, flags, 0, 0, 0) + data)
    assert requests.write(buffer) == (fh, offset, size, flags)
    assert buffer[requests.WRITE_DATA : length] == data


@given(st.lists(st.tuples(u64, u64), max_size=5))
def test_forgets_come_in_batches(pairs: list[tuple[int, int]]) -> None:
    body = struct.pack("<II", len(pairs), 0) + b"".join(struct.pack("<QQ", *pair) for pair in pairs)
    assert requests.batch_forget(*request(body)) == pairs


def test_a_batch_that_claims_more_than_it_has_is_refused() -> None:
    with pytest.raises(requests.RequestError):
        requests.batch_forget(*request(struct.pack("<II", 1000, 0)))


@given(names, st.binary(max_size=64), st.booleans())
def test_an_attribute_has_a_name_and_a_value(name: bytes, value: bytes, extended: bool) -> None:
    head = struct.pack("<II", len(value), 1) + (struct.pack("<II", 1, 0) if extended else b"")
    found = requests.setxattr(*request(head + name + b"\0" + value), extended=extended)
    assert found == (1, int(extended), name, value)


@given(u32, u32)
def test_both_halves_of_the_first_flags_count(low: int, high: int) -> None:
    asked = requests.init(*request(struct.pack("<IIIII44x", 7, 45, 0, low, high)))
    assert asked.flags == low | high << 32
    old = struct.pack("<IIII", 7, 30, 0, low)
    assert requests.init(*request(old)).flags == low


@given(st.integers(0, 2**12 - 1), st.integers(0, 2**20 - 1))
def test_device_numbers_survive_both_encodings(major: int, minor: int) -> None:
    number = os.makedev(major, minor)
    assert replies.device_of(replies.device(number)) == number


@given(st.lists(st.tuples(u64, names), max_size=8))
def test_directory_entries_are_padded_to_eight_bytes(entries: list[tuple[int, bytes]]) -> None:
    listing = b"".join(replies.dirent(ino, at + 1, 8, name) for at, (ino, name) in enumerate(entries))
    found = []
    at = 0
    while at < len(listing):
        ino, offset, length, kind = struct.unpack_from("<QQII", listing, at)
        assert (offset, kind) == (len(found) + 1, 8)
        found.append((ino, listing[at + 24 : at + 24 + length]))
        at += (24 + length + 7) // 8 * 8
    assert found == entries


def test_structures_have_the_kernels_sizes() -> None:
    found = os.stat("/")
    assert len(replies.attr(found, 1, 1, 1)) == 104
    assert len(replies.entry(2, found, 1, 1, 1)) == len(replies.absent(1)) == replies.ENTRY_BYTES == 128
    assert len(replies.opened(1, 0)) == 16
    assert len(replies.statfs(1, 1, 1, 1, 1, block=4096, fragment=4096)) == 80
    answer = replies.init(replies.InitOut(41, 0, int(opcodes.Init.PASSTHROUGH), 1, 1, 1 << 20, 256, 1))
    assert len(answer) == 64
    assert struct.unpack_from("<I", answer, 32)[0] == 1 << 5
