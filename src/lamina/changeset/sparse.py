"""Maps of sparse files: where the stored bytes of a hole-ridden file belong (pure).

Source: GNU tar manual "Storing Sparse Files": the old GNU format (type S), pax 0.0, 0.1 and 1.0.
"""

from __future__ import annotations

from collections.abc import Callable

from lamina.changeset.entry import Entry
from lamina.changeset.names import shown
from lamina.errors import InvalidArgument, UnsafeArchive

MAX_SEGMENTS = 100_000
_MAX_MAP_BYTES = 1 << 20
Map = tuple[tuple[int, int], ...]


def gnu_map(block: bytes, next_block: Callable[[], bytes]) -> tuple[int, Map]:
    """Real size and map of an old GNU sparse header; extension blocks are read with `next_block`."""
    segments = _quads(block, 386, 4)
    real = _field(block[483:495])
    extended = block[482]
    while extended:
        more = next_block()
        segments += _quads(more, 0, 21)
        extended = more[504]
        _bound(len(segments))
    return real, tuple(segments)


def pax_0_map(records: dict[bytes, bytes]) -> tuple[int, Map]:
    """Real size and map of pax format 0.0 and 0.1: all in the records."""
    numbers = [_decimal(text) for text in records.get(b"GNU.sparse.map", b"").split(b",") if text]
    return _decimal(records.get(b"GNU.sparse.size", b"")), _pairs(numbers)


def pax_1_map(records: dict[bytes, bytes], next_block: Callable[[], bytes]) -> tuple[int, Map]:
    """Real size and map of pax format 1.0: the map lies before the data, lines of decimal numbers, padded."""
    text = b""
    numbers: list[int] = []
    wanted: int | None = None
    while wanted is None or len(numbers) < wanted:
        block = next_block()
        text += block
        *lines, text = text.split(b"\n")
        numbers += [_decimal(line) for line in lines if len(numbers) <= 2 * MAX_SEGMENTS]
        if wanted is None and numbers:
            _bound(numbers[0])
            wanted = 1 + 2 * numbers[0]
        if len(text) > 64 and wanted is not None and len(numbers) < wanted:
            raise InvalidArgument("the map of a sparse file is broken")
        if wanted is not None and len(numbers) >= wanted:
            break
        if len(text) > _MAX_MAP_BYTES:
            raise UnsafeArchive("the map of a sparse file is too long")
    real = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size", b"")
    return _decimal(real), _pairs(numbers[1:wanted])


def check_map(entry: Entry) -> None:
    """The map must be in order, inside the file, and account for every stored byte."""
    end = stored = 0
    for offset, length in entry.segments:
        if offset < end or length < 0:
            raise InvalidArgument(f"the map of the sparse file {shown(entry.name)} is out of order")
        end = offset + length
        stored += length
    if end > entry.size_bytes or stored != entry.stored_bytes:
        raise InvalidArgument(f"the map of the sparse file {shown(entry.name)} does not fit its size")


def _quads(block: bytes, start: int, count: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for at in range(start, start + 24 * count, 24):
        if block[at] == 0:
            break
        found.append((_field(block[at : at + 12]), _field(block[at + 12 : at + 24])))
    return found


def _field(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 95) - 1)
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise InvalidArgument("the map of a sparse file is broken") from error


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InvalidArgument("the map of a sparse file is broken")
    return int(text)


def _pairs(numbers: list[int]) -> Map:
    if len(numbers) % 2:
        raise InvalidArgument("the map of a sparse file is broken")
    _bound(len(numbers) // 2)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _bound(count: int) -> None:
    if count > MAX_SEGMENTS:
        raise UnsafeArchive(f"a sparse file has more than {MAX_SEGMENTS} pieces")
