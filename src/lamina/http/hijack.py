"""A connection after HTTP has left it: bytes both ways, each side ending its own (async)."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Awaitable, Callable
from contextlib import suppress

READ_AHEAD_BYTES = 256 << 10


class Sent:
    """Says that the answer went out already: as a stream, or by taking the connection over."""


class RawConnection(Sent):
    """What attach and exec talk over.

    The client's end of sending (a half-close) is the end of `read`, while `write` goes on. Reading stops at
    `READ_AHEAD_BYTES` not yet read; writing waits while the client does not take what it was sent.
    """

    def __init__(
        self, transport: asyncio.Transport, drain: Callable[[], Awaitable[None]], early: bytes, *, paused: bool
    ) -> None:
        self._transport = transport
        self._drain = drain
        self._buffer = bytearray(early)
        self._ended = False
        self._lost = False
        self._closed = False
        self._wakeup: asyncio.Future[None] | None = None
        self._paused = paused
        self._hangup_watch: select.epoll | None = None

    async def read(self) -> bytes:
        """The next bytes of the client; empty when it has ended its side.

        Raises:
            ConnectionResetError: the client is gone.
        """
        while not self._buffer:
            if self._lost:
                raise ConnectionResetError("the client went away")
            if self._ended:
                return b""
            await self._woken()
        data = bytes(self._buffer)
        self._buffer.clear()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def lost(self) -> None:
        """Come back when the client is gone, and not before; bytes that arrive meanwhile are thrown away."""
        with suppress(ConnectionResetError):
            while await self.read():
                pass
            while not self._lost:
                await self._woken()

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while too much is unsent.

        Raises:
            ConnectionResetError: the client is gone.
        """
        if self._lost or self._closed or self._transport.is_closing():
            raise ConnectionResetError("the client went away")
        self._transport.write(data)
        await self._drain()

    def close(self) -> None:
        """End the connection after what was written is sent. Twice is fine."""
        if not self._closed:
            self._closed = True
            self._stop_watching()
            self._transport.close()

    def feed(self, data: bytes) -> None:
        """Bytes of the client arrived."""
        self._buffer += data
        if len(self._buffer) >= READ_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def feed_end(self) -> None:
        """The client ended its side. It may be gone altogether, which a unix socket tells at once: watch for that."""
        self._ended = True
        self._wake()
        if self._closed or self._hangup_watch is not None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return
        # The event loop has stopped watching this socket; an epoll with no event asked for reports only
        # hang-up and errors, and can itself be watched.
        self._hangup_watch = select.epoll()
        self._hangup_watch.register(sock.fileno(), 0)
        asyncio.get_running_loop().add_reader(self._hangup_watch.fileno(), self._hung_up)

    def feed_lost(self) -> None:
        """The connection is no more."""
        self._lost = True
        self._stop_watching()
        self._wake()

    def _hung_up(self) -> None:
        self._stop_watching()
        self._lost = True
        self._transport.abort()
        self._wake()

    def _stop_watching(self) -> None:
        if self._hangup_watch is not None:
            asyncio.get_running_loop().remove_reader(self._hangup_watch.fileno())
            self._hangup_watch.close()
            self._hangup_watch = None

    async def _woken(self) -> None:
        self._wakeup = asyncio.get_running_loop().create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)
