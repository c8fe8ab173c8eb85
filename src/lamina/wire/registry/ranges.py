"""`Range` and `Content-Range`, for downloads (RFC 9110) and for upload chunks (distribution-spec) (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lamina.errors import InvalidArgument

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_CHUNK_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` up to, not including, `end`."""

    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


def requested(header: str, size_bytes: int) -> Span | None:
    """The part of `size_bytes` that a `Range` header asks for; None when the header means the whole.

    Several ranges and other units are ignored, as RFC 9110 section 14.2 allows.

    Raises:
        InvalidArgument: the range begins beyond the end (status 416).
    """
    found = _RANGE.fullmatch(header.strip())
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = int(found[2])
        if length == 0:
            raise InvalidArgument("the range asks for the last 0 bytes")
        return Span(max(0, size_bytes - length), size_bytes)
    start = int(found[1])
    end = min(int(found[2]) + 1, size_bytes) if found[2] else size_bytes
    if found[2] and int(found[2]) < start:
        return None
    if start >= size_bytes:
        raise InvalidArgument(f"the range begins at {start}, the content has {size_bytes} bytes")
    return Span(start, end)


def from_offset(offset: int) -> str:
    """The `Range` header that asks for everything from `offset` on."""
    return f"bytes={offset}-"


def content_range(span: Span, size_bytes: int) -> str:
    """The `Content-Range` header of a 206 answer."""
    return f"bytes {span.start}-{span.end - 1}/{size_bytes}"


def answered(header: str) -> Span | None:
    """What a 206 answer says that it carries; None when it cannot be read."""
    found = _CONTENT_RANGE.fullmatch(header.strip())
    if not found or int(found[2]) < int(found[1]):
        return None
    return Span(int(found[1]), int(found[2]) + 1)


def chunk(header: str) -> Span:
    """The `Content-Range` of an upload chunk: `<first>-<last>`, both included.

    Raises:
        InvalidArgument: it is no such range.
    """
    found = _CHUNK_RANGE.fullmatch(header.strip())
    if not found or int(found[2]) < int(found[1]):
        raise InvalidArgument(f"invalid content range {header[:80]!r}: expected FIRST-LAST")
    return Span(int(found[1]), int(found[2]) + 1)


def received(offset: int) -> str:
    """The `Range` header of an upload that has `offset` bytes. An empty one says `0-0`, as distribution does."""
    return f"0-{max(0, offset - 1)}"
