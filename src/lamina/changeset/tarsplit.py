"""The framing of a tar kept apart from its bodies, in Docker's `tar-split.json.gz` format (pure).

One JSON object per line: type 2 holds raw bytes (headers, padding, end), type 1 a file whose content of `size` bytes
belongs in this place and whose CRC-64 is given. Together with the files the archive is rebuilt to the byte.

Three kinds of body have no file to be read back from: whiteouts with content, names that make no file, and sparse files
(whose packed form cannot be told from the file). Their bytes are kept as type 2, which every reader accepts.

Source: vbatts/tar-split `archive/tar/storage`; Docker writes one empty type 2 line at the very end (up to 24.0).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from posixpath import normpath
from typing import NamedTuple

from fastcrc import crc64
from isal import isal_zlib

from lamina.changeset.names import shown
from lamina.errors import CorruptRecord, InvalidArgument
from lamina.jsonvalue import go_json

MAX_RAW_BYTES = 1 << 20
MAX_LINE_BYTES = 8 << 20
_GZIP_LEVEL = 1
_FLUSH_LINES = 512
_USUAL_FILE = re.compile(
    rb'\{"type":1,"name":"([^"\\]*)",(?:"size":([0-9]{1,18}),)?"payload":(?:null|"([A-Za-z0-9+/]{11}=)"),"position":[0-9]+\}'
)

crc_of = crc64.go_iso
"""CRC-64/ISO as Go has it: polynomial 0xD800000000000000 reflected, all ones before and after. Takes a start value."""


class TarSplitWriter:
    """Collects the lines of one layer and gives them out as gzip bytes.

    A name may come once, however it is spelled: Docker's reader and writer both refuse a second one.
    """

    def __init__(self) -> None:
        self._encoder = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, 31)
        self._lines: list[bytes] = []
        self._position = 0
        self._seen: set[bytes] = set()

    def raw(self, data: bytes | memoryview) -> None:
        """Bytes that are no file's content; an empty string writes nothing."""
        if len(data) <= MAX_RAW_BYTES:
            if data:
                self._raw_line(data)
            return
        for start in range(0, len(data), MAX_RAW_BYTES):
            self._raw_line(data[start : start + MAX_RAW_BYTES])

    def file(self, name: bytes, size_bytes: int, crc: int) -> None:
        """A file's place: its content of `size_bytes` (may be 0) belongs here.

        Raises:
            InvalidArgument: the name came before.
        """
        cleaned = _clean(name)
        if cleaned in self._seen:
            raise InvalidArgument(f"duplicates of file paths not supported: {shown(name)}")
        self._seen.add(cleaned)
        payload = b'"%b"' % binascii.b2a_base64(crc.to_bytes(8, "big"), newline=False) if size_bytes else b"null"
        size = b'"size":%d,' % size_bytes if size_bytes else b""
        self._line(b'{"type":1,%b%b"payload":%b,"position":%d}\n' % (_json_name(name), size, payload, self._position))

    def has(self, name: bytes) -> bool:
        """Did this name come already?"""
        return _clean(name) in self._seen

    def take(self) -> bytes:
        """Compressed bytes that are ready; may be empty."""
        if len(self._lines) < _FLUSH_LINES:
            return b""
        return self._pack()

    def finish(self) -> bytes:
        """The last line and the rest of the compressed bytes."""
        self._raw_line(b"")
        return self._pack() + self._encoder.flush()

    def _raw_line(self, data: bytes | memoryview) -> None:
        packed = binascii.b2a_base64(data, newline=False)
        self._line(b'{"type":2,"payload":"%b","position":%d}\n' % (packed, self._position))

    def _line(self, line: bytes) -> None:
        self._lines.append(line)
        self._position += 1

    def _pack(self) -> bytes:
        packed: bytes = self._encoder.compress(b"".join(self._lines))
        self._lines.clear()
        return packed


class Segment(NamedTuple):
    """One line of a tar-split. `name` is None for raw bytes; else `raw` is empty and a file's content belongs here."""

    raw: bytes
    name: bytes | None = None
    size_bytes: int = 0
    crc: int = 0


def parse_lines(chunks: Iterator[bytes]) -> Iterator[Segment]:
    """Decode the decompressed lines, in order.

    Raises:
        CorruptRecord: something that is no tar-split.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield _parse_line(line)
        if len(rest) > MAX_LINE_BYTES:
            raise CorruptRecord("tar-split has a line of more than 8 MiB")
    if rest.strip():
        yield _parse_line(rest)


def _clean(name: bytes) -> bytes:
    """As Go's path.Clean; almost every name needs nothing but its last slash removed."""
    if b"//" in name or b"/." in name or b"./" in name or name[:1] in {b".", b""}:
        return normpath(b"/" + name.lstrip(b"/") if name.startswith(b"/") else name)
    return name.rstrip(b"/")


def _parse_line(line: bytes) -> Segment:
    # Our own and Docker's raw lines all look alike; taking them apart by hand is five times faster than JSON.
    if line.startswith(b'{"type":2,"payload":"'):
        end = line.find(b'"', 21)
        return Segment(_decode(line[21:end]))
    usual = _USUAL_FILE.fullmatch(line)
    if usual is not None:
        name, size, crc = usual.groups()
        return Segment(b"", name, int(size or b"0"), int.from_bytes(_decode(crc or b""), "big"))
    try:
        value = json.loads(line)
        kind = value["type"]
        payload = value.get("payload") or ""
        if kind == 2:
            return Segment(_decode(payload.encode()))
        if kind != 1:
            raise CorruptRecord(f"tar-split has a line of the unknown type {kind!r}")
        name = _decode(value["name_raw"].encode()) if value.get("name_raw") else value.get("name", "").encode()
        size = int(value.get("size", 0))
        return Segment(b"", name, size, int.from_bytes(_decode(payload.encode()), "big"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptRecord(f"tar-split is damaged: {error}") from error


def _decode(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise CorruptRecord(f"tar-split is damaged: {error}") from error


def _json_name(name: bytes) -> bytes:
    """`"name":…,` as Go writes it; nothing for an empty name; `"name_raw"` when it is not UTF-8."""
    if not name:
        return b""
    if name.isascii() and name.translate(None, _SPECIAL) == name:
        return b'"name":"%b",' % name
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return b'"name_raw":"%b",' % base64.b64encode(name)
    return b'"name":%b,' % go_json(text)


_SPECIAL = bytes(range(0x20)) + b'"\\<>&\x7f'
