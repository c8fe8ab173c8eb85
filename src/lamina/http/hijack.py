"""A connection after HTTP has left it: bytes both ways, each side ending its own (async)."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress

READ_AHEAD_BYTES = 256 << 10
HEAD_TAKEN_S = 0.1
"""How long the first output waits for a client that does not read."""
_LOOK_AGAIN_S = 0.0005


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
        self._head_taken = False

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
        if not self._head_taken:
            await self._let_head_be_taken()
        self._transport.write(data)
        await self._drain()

    async def _let_head_be_taken(self) -> None:
        """Wait until the client has read the answer's head, before bytes follow it.

        Clients that read the head through a buffer and go on with the bare socket, as docker-py does, lose what came
        in the same read. Only a unix socket tells what its peer has not read yet.
        """
        self._head_taken = True
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return
        loop = asyncio.get_running_loop()
        give_up = loop.time() + HEAD_TAKEN_S
        # The kernel wakes nobody when the peer has read: look again and again, for a moment.
        while not self._lost and unread_bytes(sock) and loop.time() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN_S)

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


def unread_bytes(sock: socket.socket) -> int:
    """What the peer of a unix socket has not read yet, as memory that it takes; 0 too when it is gone.

    Source: unix(7), SIOCOUTQ, the same number as TIOCOUTQ.
    """
    if sock.fileno() < 0:
        return 0
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", answer)[0])
