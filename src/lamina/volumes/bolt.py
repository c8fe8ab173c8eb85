"""The bbolt file format, as far as dockerd's `volumes/metadata.db` needs it (pure: bytes in, bytes out).

A file is pages. Pages 0 and 1 are metas; the valid one with the larger transaction id names the root of a B+tree of
keys to values or to further buckets. A commit never touches a page that the current meta can reach: it writes the new
tree into other pages and then the other meta. The tree is small, so every commit writes all of it.

Source: bbolt page.go, bucket.go, node.go, freelist.go, db.go; little endian throughout on the machines we run on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lamina.errors import CorruptRecord

_MAGIC, _VERSION = 0xED0CDAED, 2
_BRANCH, _LEAF, _META, _FREELIST = 0x1, 0x2, 0x4, 0x10
_IS_BUCKET = 0x1
_PAGE = struct.Struct("<QHHI")
_LEAF_ELEMENT = struct.Struct("<IIII")
_BRANCH_ELEMENT = struct.Struct("<IIQ")
_META_BODY = struct.Struct("<IIIIQQQQQ")
_CHECKSUM = struct.Struct("<Q")
_BUCKET = struct.Struct("<QQ")
_NO_FREELIST = 0xFFFFFFFFFFFFFFFF
_FULL_COUNT = 0xFFFF
_MAX_DEPTH = 32
_GROW_BYTES = 32768
PAGE_SIZES = (4096, 8192, 16384, 32768, 65536, 1024, 2048)


@dataclass(slots=True)
class Bucket:
    """Keys in byte order, each with a value or a bucket of its own. `sequence` is carried along."""

    items: dict[bytes, bytes | Bucket] = field(default_factory=dict)
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Database:
    """One consistent state of a file. `in_use` are the pages its meta can reach; `end` is the first page never used."""

    root: Bucket
    page_size: int
    transaction: int
    in_use: frozenset[int]
    end: int


@dataclass(frozen=True, slots=True)
class Commit:
    """What to write for the next state: `pages` (offset to bytes), fsync, then `meta` at `meta_offset`, fsync."""

    pages: Mapping[int, bytes]
    meta_offset: int
    meta: bytes
    size_bytes: int
    database: Database


def new_file(page_size: int = 4096) -> tuple[bytes, Database]:
    """A file without any key, as bbolt begins one."""
    freelist, root = 2, 3
    pages = [
        _encode_meta(number, number, page_size=page_size, root=root, freelist=freelist, end=4) for number in (0, 1)
    ]
    pages.append(_PAGE.pack(freelist, _FREELIST, 0, 0))
    pages.append(_PAGE.pack(root, _LEAF, 0, 0))
    data = b"".join(page.ljust(page_size, b"\0") for page in pages)
    return data, Database(Bucket(), page_size, 1, frozenset({freelist, root}), 4)


def decode(data: bytes) -> Database:
    """Read the newest valid state.

    Raises:
        CorruptRecord: no valid meta, or a page outside the file, met twice, or of the wrong kind.
    """
    metas = [meta for meta in _metas(data) if meta is not None]
    if not metas:
        raise CorruptRecord("the volume database has no valid meta page", hint="move volumes/metadata.db away")
    meta = max(metas, key=lambda one: one.transaction)
    reader = _Reader(data, meta)
    root = reader.bucket(meta.root, meta.sequence, 0)
    if meta.freelist != _NO_FREELIST:
        reader.visit(meta.freelist, _FREELIST)
    return Database(root, meta.page_size, meta.transaction, frozenset(reader.visited), meta.end)


def plan_commit(current: Database, root: Bucket) -> Commit:
    """Lay the new tree out in pages that `current` does not use."""
    writer = _Writer(current)
    root_page = writer.write_tree(root)
    freelist = writer.write_freelist()
    transaction = current.transaction + 1
    number = transaction % 2
    meta = _encode_meta(
        number, transaction, page_size=current.page_size, root=root_page, freelist=freelist, end=writer.end,
        sequence=root.sequence,
    )  # fmt: skip
    needed = writer.end * current.page_size
    return Commit(
        pages={page * current.page_size: content for page, content in writer.pages.items()},
        meta_offset=number * current.page_size,
        meta=meta.ljust(current.page_size, b"\0"),
        size_bytes=-(-needed // _GROW_BYTES) * _GROW_BYTES,
        database=Database(root, current.page_size, transaction, frozenset(writer.used), writer.end),
    )


@dataclass(frozen=True, slots=True)
class _Meta:
    page_size: int
    root: int
    sequence: int
    freelist: int
    end: int
    transaction: int


def _metas(data: bytes) -> Iterator[_Meta | None]:
    first = _decode_meta(data, 0)
    yield first
    for size in (first.page_size,) if first else PAGE_SIZES:
        second = _decode_meta(data, size)
        if second is not None and second.page_size == size:
            yield second
            return


def _decode_meta(data: bytes, offset: int) -> _Meta | None:
    at = offset + _PAGE.size
    body = data[at : at + _META_BODY.size]
    if len(data) < at + _META_BODY.size + _CHECKSUM.size:
        return None
    magic, version, page_size, _, root, sequence, freelist, end, transaction = _META_BODY.unpack(body)
    (checksum,) = _CHECKSUM.unpack_from(data, at + _META_BODY.size)
    if magic != _MAGIC or version != _VERSION or checksum != fnv1a(body) or page_size not in PAGE_SIZES:
        return None
    return _Meta(page_size, root, sequence, freelist, end, transaction)


def _encode_meta(
    number: int, transaction: int, *, page_size: int, root: int, freelist: int, end: int, sequence: int = 0
) -> bytes:
    body = _META_BODY.pack(_MAGIC, _VERSION, page_size, 0, root, sequence, freelist, end, transaction)
    return _PAGE.pack(number, _META, 0, 0) + body + _CHECKSUM.pack(fnv1a(body))


def fnv1a(data: bytes) -> int:
    """FNV-1a of 64 bits: the checksum of a meta page."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = ((found ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return found


class _Reader:
    """Walks the tree of one meta, and remembers the pages it met."""

    def __init__(self, data: bytes, meta: _Meta) -> None:
        self._data = data
        self._meta = meta
        self.visited: set[int] = set()

    def bucket(self, root: int, sequence: int, depth: int) -> Bucket:
        if depth > _MAX_DEPTH:
            raise CorruptRecord("the volume database is nested too deeply")
        found = Bucket(sequence=sequence)
        for key, flags, value in self._elements(root, depth):
            found.items[key] = self._nested(value, depth) if flags & _IS_BUCKET else value
        return found

    def visit(self, page: int, wanted: int) -> tuple[int, int, int, int]:
        """(kind, count, first byte, end byte) of a page with its overflow pages, each of which is met once only."""
        size = self._meta.page_size
        if not 2 <= page < self._meta.end or (page + 1) * size > len(self._data):
            raise CorruptRecord(f"the volume database points to page {page}, which it does not have")
        number, kind, count, overflow = _PAGE.unpack_from(self._data, page * size)
        pages = range(page, page + overflow + 1)
        if number != page or not kind & wanted or pages[-1] >= self._meta.end or pages[-1] * size >= len(self._data):
            raise CorruptRecord(f"page {page} of the volume database is not what its parent says")
        if not self.visited.isdisjoint(pages):
            raise CorruptRecord(f"page {page} of the volume database is used twice")
        self.visited.update(pages)
        return kind, count, page * size, (pages[-1] + 1) * size

    def _nested(self, value: bytes, depth: int) -> Bucket:
        if len(value) < _BUCKET.size:
            raise CorruptRecord("a bucket of the volume database is cut off")
        root, sequence = _BUCKET.unpack_from(value)
        if root:
            return self.bucket(root, sequence, depth + 1)
        if len(value) < _BUCKET.size + _PAGE.size:
            raise CorruptRecord("an inline bucket of the volume database is cut off")
        _, _, count, _ = _PAGE.unpack_from(value, _BUCKET.size)
        found = Bucket(sequence=sequence)
        for key, flags, content in _leaf_elements(value, _BUCKET.size, count, len(value)):
            if flags & _IS_BUCKET:
                raise CorruptRecord("an inline bucket of the volume database holds a bucket")
            found.items[key] = content
        return found

    def _elements(self, page: int, depth: int) -> Iterator[tuple[bytes, int, bytes]]:
        if depth > _MAX_DEPTH:
            raise CorruptRecord("the volume database is nested too deeply")
        kind, count, start, end = self.visit(page, _BRANCH | _LEAF)
        if kind & _LEAF:
            yield from _leaf_elements(self._data, start, count, end)
            return
        for index in range(count):
            at = start + _PAGE.size + index * _BRANCH_ELEMENT.size
            if at + _BRANCH_ELEMENT.size > end:
                raise CorruptRecord("a page of the volume database counts more keys than it holds")
            yield from self._elements(_BRANCH_ELEMENT.unpack_from(self._data, at)[2], depth + 1)


def _leaf_elements(data: bytes, start: int, count: int, end: int) -> Iterator[tuple[bytes, int, bytes]]:
    for index in range(count):
        at = start + _PAGE.size + index * _LEAF_ELEMENT.size
        if at + _LEAF_ELEMENT.size > end:
            raise CorruptRecord("a page of the volume database counts more keys than it holds")
        flags, position, key_size, value_size = _LEAF_ELEMENT.unpack_from(data, at)
        key = at + position
        if key + key_size + value_size > end:
            raise CorruptRecord("a key of the volume database reaches beyond its page")
        yield data[key : key + key_size], flags, data[key + key_size : key + key_size + value_size]


@dataclass(frozen=True, slots=True)
class _Element:
    key: bytes
    value: bytes
    flags: int


class _Writer:
    """Puts a tree into free pages."""

    def __init__(self, current: Database) -> None:
        self._size = current.page_size
        self._free = sorted(set(range(2, current.end)) - current.in_use)
        self.end = current.end
        self.pages: dict[int, bytes] = {}
        self._lengths: dict[int, int] = {}
        self.used: set[int] = set()

    def write_tree(self, bucket: Bucket) -> int:
        """Write the bucket's pages, leaves first; the number of its root page."""
        level = [self._leaf(group) for group in self._groups(self._encode_items(bucket), _LEAF_ELEMENT.size)]
        while len(level) > 1:
            elements = [_Element(key, _CHECKSUM.pack(page), 0) for key, page in level]
            level = [self._branch(group) for group in self._groups(elements, _BRANCH_ELEMENT.size)]
        return level[0][1]

    def write_freelist(self) -> int:
        """Write the list of pages that the new tree leaves free; the number of its page.

        The list names pages of the old tree too: they are free as soon as the new meta is there.
        """
        page = self._allocate(_PAGE.size + 8 * (self.end + 2))
        free = sorted(set(range(2, self.end)) - self.used)
        count, prefix = (len(free), []) if len(free) < _FULL_COUNT else (_FULL_COUNT, [len(free)])
        body = struct.pack(f"<{len(prefix) + len(free)}Q", *prefix, *free)
        self._fill(page, _FREELIST, count=count, body=body)
        return page

    def _encode_items(self, bucket: Bucket) -> list[_Element]:
        found: list[_Element] = []
        for key in sorted(bucket.items):
            value = bucket.items[key]
            if isinstance(value, Bucket):
                found.append(_Element(key, self._encode_bucket(value), _IS_BUCKET))
            else:
                found.append(_Element(key, value, 0))
        return found

    def _encode_bucket(self, bucket: Bucket) -> bytes:
        values = [value for value in bucket.items.values() if not isinstance(value, Bucket)]
        if len(values) == len(bucket.items):
            body = _leaf_body(self._encode_items(bucket))
            if _PAGE.size + len(body) <= self._size // 4:  # bbolt keeps such a bucket inside its parent's value
                page = _PAGE.pack(0, _LEAF, len(bucket.items), 0) + body
                return _BUCKET.pack(0, bucket.sequence) + page
        return _BUCKET.pack(self.write_tree(bucket), bucket.sequence)

    def _groups(self, elements: list[_Element], header: int) -> list[list[_Element]]:
        """Elements in runs that fit a page; a single one that does not has a page with overflow to itself."""
        groups: list[list[_Element]] = [[]]
        room = self._size - _PAGE.size
        for element in elements:
            # A branch keeps the page number in its element, not among the data.
            needed = header + len(element.key) + (len(element.value) if header == _LEAF_ELEMENT.size else 0)
            if needed > room and groups[-1]:
                groups.append([])
                room = self._size - _PAGE.size
            groups[-1].append(element)
            room -= needed
        return groups

    def _leaf(self, group: list[_Element]) -> tuple[bytes, int]:
        body = _leaf_body(group)
        page = self._allocate(_PAGE.size + len(body))
        self._fill(page, _LEAF, count=len(group), body=body)
        return (group[0].key if group else b""), page

    def _branch(self, group: list[_Element]) -> tuple[bytes, int]:
        headers, keys = bytearray(), bytearray()
        for index, element in enumerate(group):
            position = (len(group) - index) * _BRANCH_ELEMENT.size + len(keys)
            headers += _BRANCH_ELEMENT.pack(position, len(element.key), _CHECKSUM.unpack(element.value)[0])
            keys += element.key
        page = self._allocate(_PAGE.size + len(headers) + len(keys))
        self._fill(page, _BRANCH, count=len(group), body=bytes(headers + keys))
        return group[0].key, page

    def _fill(self, first: int, kind: int, *, count: int, body: bytes) -> None:
        pages = self._lengths[first]
        header = _PAGE.pack(first, kind, count, pages - 1)
        self.pages[first] = (header + body).ljust(pages * self._size, b"\0")

    def _allocate(self, size: int) -> int:
        count = -(-size // self._size)
        first = self._free_run(count)
        if first is None:
            first, self.end = self.end, self.end + count
        self._lengths[first] = count
        self.used.update(range(first, first + count))
        return first

    def _free_run(self, count: int) -> int | None:
        for index in range(len(self._free) - count + 1):
            first = self._free[index]
            if self._free[index + count - 1] == first + count - 1:
                del self._free[index : index + count]
                return first
        return None


def _leaf_body(group: list[_Element]) -> bytes:
    headers, data = bytearray(), bytearray()
    for index, element in enumerate(group):
        position = (len(group) - index) * _LEAF_ELEMENT.size + len(data)
        headers += _LEAF_ELEMENT.pack(element.flags, position, len(element.key), len(element.value))
        data += element.key + element.value
    return bytes(headers + data)
