"""Tar archives as a stream of entries, keeping every byte that is not file content (pure).

Reads ustar, pax, GNU and V7 headers, one chunk of bytes at a time and without copying bodies. What is not content
(headers, extension headers with their data, padding, the end) is handed out as *framing*, so that a tar can be rebuilt
to the byte: see `tarsplit`.

Source: POSIX pax "ustar Interchange Format", "pax Extended Header"; GNU tar manual "Basic Tar Format"; for what is
lenient and what is not, Go archive/tar, because its reading decides what images in the wild look like.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from zlib import adler32

from lamina.changeset import sparse
from lamina.changeset.entry import Entry, EntryKind
from lamina.changeset.names import shown
from lamina.errors import DataLoss, InvalidArgument, UnsafeArchive

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
MAX_EXTENSION_BYTES = 1 << 20
"""Largest pax header or GNU long name, as Go's reader has it."""
_MAX_ID = (1 << 32) - 2
"""The largest would mean "leave it as it is" to chown(2)."""
_MAX_TIME_NS = (1 << 63) - 1

_KINDS = {
    0: EntryKind.FILE,
    ord("0"): EntryKind.FILE,
    ord("7"): EntryKind.FILE,  # contiguous: no Unix file system knows the difference
    ord("S"): EntryKind.FILE,  # GNU sparse
    ord("1"): EntryKind.HARD_LINK,
    ord("2"): EntryKind.SYMLINK,
    ord("3"): EntryKind.CHARACTER_DEVICE,
    ord("4"): EntryKind.BLOCK_DEVICE,
    ord("5"): EntryKind.DIRECTORY,
    ord("6"): EntryKind.FIFO,
}
_XATTR = b"SCHILY.xattr."


@dataclass(frozen=True, slots=True)
class TarLimits:
    """How much of an archive is read before it counts as an attack. A layer of a million names is beyond real use."""

    entries: int = 1_000_000
    file_bytes: int = 1 << 40


DEFAULT_LIMITS = TarLimits()


class TarReader:
    """Walks a tar: `next_entry`, then its body, then `next_entry` again.

    After each `next_entry`, `take_framing` gives the bytes since the last body: padding and headers; after the last one
    (None) the end blocks. `rest` then gives what follows the archive's end.
    """

    def __init__(self, chunks: Iterator[bytes], limits: TarLimits = DEFAULT_LIMITS) -> None:
        self._chunks = chunks
        self._limits = limits
        self._chunk = b""
        self._view = memoryview(b"")
        self._at = 0
        self._size = 0
        self._framing: list[bytes] = []
        self._left = 0
        self._padding = 0
        self._seen = 0
        self._owners: dict[bytes, tuple[int, int, int]] = {}

    def next_entry(self) -> Entry | None:
        """The next name of the archive, or None at its end.

        Raises:
            InvalidArgument: this is no tar, or a broken one.
            UnsafeArchive: a limit is exceeded.
            DataLoss: the archive ends in the middle.
        """
        if self._left:
            for _ in self.pieces():
                pass
        if self._padding:
            self._framing.append(self._exactly(self._padding))
            self._padding = 0
        self._seen += 1
        if self._seen > self._limits.entries:
            raise UnsafeArchive(f"the archive has more than {self._limits.entries} entries")
        return self._read_entry()

    def take_framing(self) -> bytes:
        """The framing since it was last taken."""
        framing = b"".join(self._framing)
        self._framing.clear()
        return framing

    def whole_body(self) -> memoryview | None:
        """The stored body if all of it is at hand; else None, and `pieces` gives it. Valid until the next call."""
        end = self._at + self._left
        if end > self._size:
            return None
        body = self._view[self._at : end]
        self._at = end
        self._left = 0
        return body

    def pieces(self) -> Iterator[memoryview]:
        """The stored body (or what is left of it) piece by piece."""
        while self._left:
            if self._at == self._size and not self._refill():
                raise DataLoss("the archive ends in the middle of a file")
            end = min(self._size, self._at + self._left)
            piece = self._view[self._at : end]
            self._left -= end - self._at
            self._at = end
            yield piece

    def rest(self) -> Iterator[bytes]:
        """Every byte after the end of the archive."""
        while self._at < self._size or self._refill():
            rest = self._chunk[self._at :]
            self._at = self._size
            yield rest

    def _refill(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._chunk = chunk
                self._view = memoryview(chunk)
                self._at = 0
                self._size = len(chunk)
                return True
        return False

    def _exactly(self, count: int) -> bytes:
        found = self._upto(count)
        if len(found) < count:
            raise DataLoss("the archive ends in the middle of an entry")
        return found

    def _upto(self, count: int) -> bytes:
        """`count` bytes, or fewer at the very end."""
        end = self._at + count
        if end <= self._size:
            found = self._chunk[self._at : end]
            self._at = end
            return found
        parts: list[bytes] = []
        missing = count
        while missing:
            if self._at == self._size and not self._refill():
                break
            part = self._chunk[self._at : self._at + missing]
            self._at += len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _read_entry(self) -> Entry | None:
        records: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while True:
            block = self._upto(BLOCK)
            self._framing.append(block)
            if len(block) < BLOCK:
                if block:
                    raise DataLoss("the archive ends in the middle of a header")
                return None
            if block == ZERO_BLOCK:
                self._read_end()
                return None
            _check_sum(block)
            flag = block[156]
            if flag == 0x78:  # x
                records = _pax_records(self._extension(block))
            elif flag == 0x4C:  # L
                long_name = self._extension(block).split(b"\0", 1)[0]
            elif flag == 0x4B:  # K
                long_link = self._extension(block).split(b"\0", 1)[0]
            elif flag == 0x67:  # g
                _pax_records(self._extension(block))
                return Entry(EntryKind.GLOBAL_HEADER, _text(block, 0, 100))
            else:
                return self._finish(block, records, long_name, long_link)

    def _read_end(self) -> None:
        second = self._upto(BLOCK)
        self._framing.append(second)
        if second and second != ZERO_BLOCK:
            raise InvalidArgument("the archive has an empty header in the middle")

    def _extension(self, block: bytes) -> bytes:
        size = _number(block[124:136])
        if not 0 <= size <= MAX_EXTENSION_BYTES:
            # A negative size would turn the reader back to where it was: an endless loop.
            raise UnsafeArchive(f"an extended header of {size} bytes is not within 0 and {MAX_EXTENSION_BYTES}")
        padded = self._exactly(-(-size // BLOCK) * BLOCK)
        self._framing.append(padded)
        return padded[:size]

    def _finish(self, block: bytes, records: dict[bytes, bytes], long_name: bytes, long_link: bytes) -> Entry:
        flag = block[156]
        kind = _KINDS.get(flag)
        name = long_name or _header_name(block)
        if kind is None:
            raise InvalidArgument(f"the entry {shown(name)} has the unknown type {chr(flag)!r}")
        mode, uid, gid = self._owner(block[100:124])
        mtime = _number(block[136:148]) * 1_000_000_000
        entry = Entry(
            kind,
            name,
            link=(long_link or _text(block, 157, 257)) if flag in {0x31, 0x32} else b"",
            mode=mode,
            uid=uid,
            gid=gid,
            size_bytes=_number(block[124:136]),
            mtime_ns=mtime if 0 <= mtime <= _MAX_TIME_NS else 0,
        )
        if flag in {0x33, 0x34} and block[257:262] == b"ustar":
            entry.major = _number(block[329:337])
            entry.minor = _number(block[337:345])
        if records:
            _apply_records(entry, records)
        if not flag and entry.name.endswith(b"/"):
            entry.kind = EntryKind.DIRECTORY  # V7 had no type for directories
        if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
            raise InvalidArgument(
                f"the owner of {shown(entry.name)} is no user or group that can be: {entry.uid}:{entry.gid}"
            )
        self._size_body(entry, block, records)
        return entry

    def _owner(self, field: bytes) -> tuple[int, int, int]:
        """Mode, uid and gid: few different ones in an archive, so each is decoded once."""
        found = self._owners.get(field)
        if found is None:
            if len(self._owners) > 4096:
                self._owners.clear()
            found = (_number(field[:8]) & 0o7777, _number(field[8:16]), _number(field[16:24]))
            self._owners[field] = found
        return found

    def _size_body(self, entry: Entry, block: bytes, records: dict[bytes, bytes]) -> None:
        size = entry.size_bytes
        if not 0 <= size <= self._limits.file_bytes:
            raise UnsafeArchive(f"{shown(entry.name)} claims to be {size} bytes long")
        if entry.kind is not EntryKind.FILE:
            entry.size_bytes = 0  # only files have a body, whatever the field says
            return
        entry.stored_bytes = size
        self._left = size
        self._padding = -size % BLOCK
        if block[156] == 0x53 or b"GNU.sparse.major" in records or b"GNU.sparse.map" in records:
            self._read_sparse(entry, block, records)

    def _read_sparse(self, entry: Entry, block: bytes, records: dict[bytes, bytes]) -> None:
        """Learn where the data of a sparse file belongs; map blocks become framing."""
        if block[156] == 0x53:
            # The map's extra blocks lie between header and body, and are not counted in the size.
            real, entry.segments = sparse.gnu_map(block, self._sparse_block)
        elif records.get(b"GNU.sparse.major") == b"1":
            before = self._left
            real, entry.segments = sparse.pax_1_map(records, self._sparse_body_block)
            entry.stored_bytes -= before - self._left
        else:
            real, entry.segments = sparse.pax_0_map(records)
        name = records.get(b"GNU.sparse.name")
        if name:
            entry.name = name
        entry.is_sparse = True
        entry.size_bytes = real
        if real > self._limits.file_bytes:
            raise UnsafeArchive(f"{shown(entry.name)} claims to be {real} bytes long")
        sparse.check_map(entry)

    def _sparse_block(self) -> bytes:
        block = self._exactly(BLOCK)
        self._framing.append(block)
        return block

    def _sparse_body_block(self) -> bytes:
        if self._left < BLOCK:
            raise InvalidArgument("the map of a sparse file is cut off")
        self._left -= BLOCK
        return self._sparse_block()


def _check_sum(block: bytes) -> None:
    # The low half of adler32 is one plus the sum of the bytes, exact for 256 of them: twenty times faster than sum().
    found = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    field = block[148:156]
    found += 8 * 0x20 - sum(field)
    try:
        wanted = _number(field)
    except InvalidArgument:
        wanted = -1
    if wanted != found and wanted != _signed_sum(block):
        raise InvalidArgument("this is not a tar archive: a header has a wrong checksum")


def _signed_sum(block: bytes) -> int:
    """Some old tars summed signed characters."""
    blanked = block[:148] + b" " * 8 + block[156:]
    return sum(value - 256 if value > 127 else value for value in blanked)


def _text(block: bytes, start: int, end: int) -> bytes:
    return block[start:end].split(b"\0", 1)[0]


def _header_name(block: bytes) -> bytes:
    name = _text(block, 0, 100)
    if block[257:263] == b"ustar\0":
        prefix = _text(block, 345, 500)
        if prefix:
            return prefix + b"/" + name
    return name


def _number(field: bytes) -> int:
    """A numeric field: octal text, or base 256 when its first bit is set (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        return value
    text = field.strip(b" \0").split(b"\0", 1)[0]
    if not text:
        return 0
    if not text.isdigit():
        raise InvalidArgument(f"a header has {field!r} where a number belongs")
    try:
        return int(text, 8)
    except ValueError as error:
        raise InvalidArgument(f"a header has {field!r} where an octal number belongs") from error


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    r"""`<length> <key>=<value>\n` over and over. The last of a key counts, except for sparse maps, which add up."""
    records: dict[bytes, bytes] = {}
    sparse_map: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        digits = data[at:space] if space >= 0 else b""
        if not digits.isdigit():
            raise InvalidArgument("an extended header is broken")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A or not equals or not key:
            raise InvalidArgument("an extended header is broken")
        if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
            sparse_map.append(value)
        if b"\0" in (key if key.startswith(_XATTR) else value if key in _NO_NUL else b""):
            raise InvalidArgument(f"the extended header {key[:40]!r} holds a NUL byte")
        records[key] = value
        at = end
    if sparse_map:
        records[b"GNU.sparse.map"] = b",".join(sparse_map)
    return records


_NO_NUL = frozenset({b"path", b"linkpath", b"uname", b"gname", b"GNU.sparse.name"})


def _apply_records(entry: Entry, records: dict[bytes, bytes]) -> None:
    entry.name = records.get(b"path") or entry.name
    if entry.link:
        entry.link = records.get(b"linkpath") or entry.link
    elif entry.kind in {EntryKind.SYMLINK, EntryKind.HARD_LINK}:
        entry.link = records.get(b"linkpath", b"")
    entry.uid = _decimal(records, b"uid", entry.uid)
    entry.gid = _decimal(records, b"gid", entry.gid)
    entry.size_bytes = _decimal(records, b"size", entry.size_bytes)
    if records.get(b"mtime"):
        entry.mtime_ns = _time_ns(records[b"mtime"])
    if records.get(b"atime"):
        entry.atime_ns = _time_ns(records[b"atime"])
    entry.xattrs = tuple((key[len(_XATTR) :], value) for key, value in records.items() if key.startswith(_XATTR))


def _decimal(records: dict[bytes, bytes], key: bytes, default: int) -> int:
    text = records.get(key)
    if not text:
        return default
    if not text.isdigit() or len(text) > 20:
        raise InvalidArgument(f"the extended header {key.decode()} is no number")
    return int(text)


def _time_ns(text: bytes) -> int:
    """Seconds with a decimal fraction; what does not fit (before 1970, after 2262) is the epoch, as in Docker."""
    seconds, _, fraction = text.partition(b".")
    digits = (fraction + b"000000000")[:9]
    if not seconds.lstrip(b"-").isdigit() or not digits.isdigit() or len(seconds) > 20:
        raise InvalidArgument("an extended header holds a broken time")
    found = int(seconds) * 1_000_000_000 + int(digits)
    return found if 0 <= found <= _MAX_TIME_NS and not seconds.startswith(b"-") else 0
