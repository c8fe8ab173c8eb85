"""One request and its answer, free of the HTTP library's own types (async)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qs, unquote

from aiohttp import web

from lamina.errors import InvalidArgument
from lamina.http.hijack import RawConnection, Sent


class Via(Enum):
    """Over what kind of socket a request came."""

    UNIX = "unix"
    TCP = "tcp"
    TLS = "tls"


class BodyTooLarge(InvalidArgument):
    """The body is longer than this operation reads."""


Headers: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes = b""
    headers: Headers = ()
    close: bool = False
    """The connection ends with it."""


Answer: TypeAlias = "Reply | Sent"


class Connection(Protocol):
    """What a request asks of the connection that it came on."""

    def write_continue(self) -> None:
        """Tell the client to send the body."""

    def cancel_when_lost(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel the task when the client goes away."""

    def take_over(self, head: bytes) -> RawConnection:
        """Leave HTTP."""


class Application(Protocol):
    """What a server serves."""

    async def __call__(self, request: Request) -> Answer:
        """Answer one request. An error that comes out of it is answered with 500."""

    def takes_over(self, method: str, target: str) -> bool:
        """This request may take the connection over: bytes behind it wait until that is decided."""


@dataclass(slots=True, eq=False)
class Request:
    """One request; the body is read at most once."""

    method: str
    path: str
    """Percent-decoded, without the query."""
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    """Case-insensitive."""
    via: Via
    _native: web.BaseRequest
    _connection: Connection
    common_headers: list[tuple[str, str]] = field(default_factory=list)
    """Headers that every answer to this request carries."""
    _sent: Sent | None = None

    @property
    def content_length(self) -> int | None:
        """Announced bytes of body; None when it comes in chunks."""
        if "Transfer-Encoding" in self.headers:
            return None
        return int(self.headers.get("Content-Length", "0"))

    def value(self, key: str, default: str = "") -> str:
        """The first value of a query parameter."""
        found = self.query.get(key)
        return found[0] if found else default

    async def read(self, limit_bytes: int, *, within_s: float = 60.0) -> bytes:
        """The whole body.

        Raises:
            BodyTooLarge: longer than `limit_bytes`; a longer Content-Length is refused before anything is read.
            InvalidArgument: the client did not send it in time.
        """
        if (self.content_length or 0) > limit_bytes:
            raise BodyTooLarge(f"the request body is larger than {limit_bytes} bytes")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(within_s):
                async for chunk in self.chunks():
                    size += len(chunk)
                    if size > limit_bytes:
                        raise BodyTooLarge(f"the request body is larger than {limit_bytes} bytes")
                    parts.append(chunk)
        except TimeoutError as error:
            raise InvalidArgument(f"the request body did not arrive within {within_s:g} seconds") from error
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, not buffered; a client that goes away raises ConnectionError."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self._connection.write_continue()
        try:
            async for chunk in self._native.content.iter_any():
                yield chunk
        except web.RequestPayloadError as error:
            raise ConnectionResetError("the client went away while sending the body") from error

    def end_with_client(self) -> None:
        """From now on the running task is cancelled when the client goes away."""
        self._connection.cancel_when_lost(asyncio.current_task())

    def stream(self, status: int = 200, headers: Headers = ()) -> Stream:
        """An answer whose body is written bit by bit."""
        stream = Stream(self._native, status, [*self.common_headers, *headers])
        self._sent = stream
        return stream

    def hijack(self, head: bytes) -> RawConnection:
        """Take the connection over from HTTP: `head` goes out as it is, then bytes flow both ways."""
        raw = self._connection.take_over(head)
        self._sent = raw
        return raw

    @property
    def begun(self) -> Sent | None:
        """The answer that is on its way already, so that no other can be given."""
        if isinstance(self._sent, Stream) and not self._sent.begun:
            return None
        return self._sent


class Stream(Sent):
    """A body that is written bit by bit; chunked unless a Content-Length was given."""

    def __init__(self, native: web.BaseRequest, status: int, headers: Headers) -> None:
        self._native = native
        self.response = web.StreamResponse(status=status)
        set_headers(self.response, headers)

    @property
    def begun(self) -> bool:
        """The head is out: the status cannot be changed any more."""
        return self.response.prepared

    async def begin(self) -> None:
        """Send the head now. Again is fine."""
        if not self.response.prepared:
            await self.response.prepare(self._native)

    async def write(self, data: bytes) -> None:
        """Send bytes now, after the head; waits while the client is slow.

        Raises:
            ConnectionError: the client went away.
        """
        await self.begin()
        await self.response.write(data)

    async def end(self) -> None:
        """The body is complete."""
        await self.begin()
        await self.response.write_eof()

    def abort(self) -> None:
        """Cut the connection, so that the client can tell a broken body from a complete one."""
        transport = self._native.transport
        if transport is not None:
            transport.abort()


def set_headers(response: web.StreamResponse, headers: Headers) -> None:
    """Put headers on a response of the library."""
    for name, value in headers:
        response.headers[name] = value


def split_target(target: str) -> tuple[str, dict[str, list[str]]]:
    """The decoded path and the query of a request target, in origin or absolute form.

    Raises:
        InvalidArgument: escapes that are not UTF-8, or control characters.
    """
    if not target.startswith("/"):
        after_scheme = target.partition("://")[2]
        target = "/" + after_scheme.partition("/")[2]
    raw_path, _, raw_query = target.partition("?")
    try:
        path = unquote(raw_path, errors="strict")
        query = parse_qs(raw_query.partition("#")[0], keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise InvalidArgument("the request target is malformed") from error
    if any(ord(character) < 0x20 or character == "\x7f" for character in path):
        raise InvalidArgument("the request path holds control characters")
    return path, query
