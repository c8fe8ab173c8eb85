"""Where one request of a connection ends and the next begins (pure).

The library's parser is told only bytes that passed here, so a request that takes the connection over is split from the
raw bytes behind it, and a head that two parsers could read differently never gets through.

Source: RFC 9112, 2.2, 5, 6 and 7.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from lamina.errors import InvalidArgument

MAX_HEAD_BYTES = 64 << 10
MAX_CHUNK_LINE_BYTES = 4 << 10
MAX_TRAILER_BYTES = 16 << 10

_REQUEST_LINE = re.compile(rb"([A-Za-z]{1,32}) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00\r\n]*)?\r\n")


class BadRequest(InvalidArgument):
    """The bytes are no request that everybody would read alike; the connection cannot go on."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """What framing needs to know of a request."""

    method: str
    target: str
    length: int
    """Bytes of body announced by Content-Length; 0 without it."""
    chunked: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What became of some bytes: so many were used, these go on to the parser."""

    used: int
    forward: bytes
    begun: Head | None = None
    """Set with the step that completes a head."""
    ended: bool = False
    """The request is complete with this step."""


class _Stage(Enum):
    HEAD = auto()
    BODY = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    GIVEN_UP = auto()


class RequestFraming:
    """Reads along a connection; bytes in, steps out."""

    __slots__ = ("_left", "_line", "_stage")

    def __init__(self) -> None:
        self._stage = _Stage.HEAD
        self._line = bytearray()
        self._left = 0

    @property
    def head_begun(self) -> bool:
        """Some bytes of a head are here, but not all."""
        return self._stage is _Stage.HEAD and bool(self._line)

    def give_up(self) -> None:
        """After a refusal the rest of the connection means nothing: it is used up and forwarded to nobody."""
        self._stage = _Stage.GIVEN_UP
        self._line.clear()

    def advance(self, data: bytes) -> Step:
        """Use the next bytes, up to the end of the current part of the request at most.

        Raises:
            BadRequest: the framing is broken or ambiguous.
        """
        if self._stage is _Stage.HEAD:
            return self._head(data)
        if self._stage in {_Stage.BODY, _Stage.CHUNK, _Stage.CHUNK_END}:
            return self._counted(data)
        if self._stage is _Stage.GIVEN_UP:
            return Step(used=len(data), forward=b"")
        return self._chunk_line(data)

    def _head(self, data: bytes) -> Step:
        before = len(self._line)
        self._line += data
        if not before:
            blank = len(self._line) - len(self._line.lstrip(b"\r\n"))
            if blank:  # RFC 9112, 2.2: empty lines before a request line are ignored
                self._line.clear()
                return Step(used=blank, forward=b"")
        end = self._line.find(b"\r\n\r\n", max(0, before - 3))
        if end < 0:
            if len(self._line) > MAX_HEAD_BYTES:
                raise BadRequest(f"the request head is larger than {MAX_HEAD_BYTES} bytes", status=431)
            return Step(used=len(data), forward=b"")
        end += 4
        if end > MAX_HEAD_BYTES:
            raise BadRequest(f"the request head is larger than {MAX_HEAD_BYTES} bytes", status=431)
        raw = bytes(self._line[:end])
        self._line.clear()
        head = parse_head(raw)
        if head.chunked:
            self._stage = _Stage.CHUNK_LINE
        elif head.length:
            self._stage, self._left = _Stage.BODY, head.length
        return Step(used=end - before, forward=raw, begun=head, ended=not head.chunked and not head.length)

    def _counted(self, data: bytes) -> Step:
        used = min(self._left, len(data))
        forward = data if used == len(data) else data[:used]
        self._left -= used
        if self._left:
            return Step(used=used, forward=forward)
        if self._stage is _Stage.CHUNK:
            self._stage, self._left = _Stage.CHUNK_END, 2
        elif self._stage is _Stage.CHUNK_END:
            self._stage = _Stage.CHUNK_LINE
        else:
            self._stage = _Stage.HEAD
            return Step(used=used, forward=forward, ended=True)
        return Step(used=used, forward=forward)

    def _chunk_line(self, data: bytes) -> Step:
        newline = data.find(b"\n")
        used = len(data) if newline < 0 else newline + 1
        forward = data[:used]
        self._line += forward
        limit = MAX_CHUNK_LINE_BYTES if self._stage is _Stage.CHUNK_LINE else MAX_TRAILER_BYTES
        if len(self._line) > limit:
            raise BadRequest("a line of the chunked body is too long")
        if newline < 0:
            return Step(used=used, forward=forward)
        line = bytes(self._line)
        if self._stage is _Stage.CHUNK_LINE:
            self._line.clear()
            self._begin_chunk(line)
            return Step(used=used, forward=forward)
        # Trailer lines gather in the buffer, so that all of them together are bounded; an empty one ends them.
        if line.endswith(b"\n\r\n") or line == b"\r\n":
            self._line.clear()
            self._stage = _Stage.HEAD
            return Step(used=used, forward=forward, ended=True)
        return Step(used=used, forward=forward)

    def _begin_chunk(self, line: bytes) -> None:
        found = _CHUNK_LINE.fullmatch(line)
        if not found:
            raise BadRequest("a chunk of the body has no proper size")
        self._left = int(found[1], 16)
        self._stage = _Stage.CHUNK if self._left else _Stage.TRAILER


def parse_head(raw: bytes) -> Head:
    """Read a complete head, empty line included, and refuse whatever could be read in two ways.

    Raises:
        BadRequest: no request line, a malformed field, or framing fields that contradict one another.
    """
    lines = raw[:-4].split(b"\r\n")
    request_line = _REQUEST_LINE.fullmatch(lines[0])
    if not request_line:
        raise BadRequest("malformed request line: expected METHOD TARGET HTTP/1.1")
    method = request_line[1].decode("ascii")
    if method == "CONNECT":
        raise BadRequest("CONNECT is not served", status=405)
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        if not field:
            raise BadRequest("malformed header line")
        name = field[1].lower()
        if name == b"content-length":
            lengths.append(field[2])
        elif name == b"transfer-encoding":
            codings.append(field[2].lower())
    target = request_line[2].decode("latin-1")
    return Head(method, target, _length(lengths), chunked=_is_chunked(codings, lengths, request_line[3]))


def _length(values: list[bytes]) -> int:
    if not values:
        return 0
    if len(values) > 1 or not re.fullmatch(rb"[0-9]{1,18}", values[0]):
        raise BadRequest("malformed Content-Length")
    return int(values[0])


def _is_chunked(codings: list[bytes], lengths: list[bytes], minor: bytes) -> bool:
    if not codings:
        return False
    if lengths:
        raise BadRequest("Content-Length and Transfer-Encoding contradict each other")
    if codings != [b"chunked"] or minor == b"0":
        raise BadRequest("unsupported Transfer-Encoding: only chunked is", status=501)
    return True
