"""TLS below a connection's protocol, with each direction ended apart (async).

asyncio's own TLS ends a connection with the first end that it hears of. A docker client ends its input that way
(close_notify) and then waits for the output of its container, so here the one direction goes on without the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any

HANDSHAKE_S = 10.0
_CHUNK_BYTES = 256 << 10


class TlsConnection(asyncio.Protocol):
    """The server's side of TLS between a socket's transport and the protocol that `make_inner` gives."""

    def __init__(self, context: ssl.SSLContext, make_inner: Callable[[], asyncio.Protocol]) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._make_inner = make_inner
        self._inner: asyncio.Protocol | None = None  # None until the handshake is done
        self._peer_ended = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self.advance()

    def eof_received(self) -> bool:
        """Without its close_notify before, this end would be a cut. After it, the whole connection ends."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    # -- between the two sides

    def advance(self) -> None:
        """Go on with what has come in: the handshake first, then data, until it is used up or nobody reads."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            if self._inner is None:
                self._tls.do_handshake()
                self._begin(transport)
            self._deliver(transport)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:
            self._flush()  # the alert that says why
            transport.close()

    def _begin(self, transport: asyncio.Transport) -> None:
        self._stop_deadline()
        self._flush()
        self._inner = self._make_inner()
        self._inner.connection_made(TlsTransport(self, transport, self._tls))

    def _deliver(self, transport: asyncio.Transport) -> None:
        """Raises ssl.SSLWantReadError when everything is delivered."""
        assert self._inner is not None
        while not self._peer_ended and transport.is_reading() and not transport.is_closing():
            try:
                data = self._tls.read(_CHUNK_BYTES)
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self._inner.data_received(data)
                continue
            self._peer_ended = True
            if not self._inner.eof_received():
                self.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._transport is None or self._transport.is_closing() or not data:
            return
        self._tls.write(data)
        self._flush()

    def close(self) -> None:
        """Say that nothing more comes, and close when that is sent."""
        if self._transport is None or self._transport.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):  # the answer to it is not waited for
            self._tls.unwrap()
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._transport is not None:
            self._transport.write(data)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class TlsTransport(asyncio.Transport):
    """What the inner protocol writes to."""

    def __init__(self, connection: TlsConnection, transport: asyncio.Transport, tls: ssl.SSLObject) -> None:
        super().__init__({"ssl_object": tls, "sslcontext": tls.context, "peercert": tls.getpeercert()})
        self._connection = connection
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 (asyncio's signature)
        own = super().get_extra_info(name)
        return own if own is not None else self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._connection.write(data)

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()
        # What was decrypted already waits for no more bytes.
        asyncio.get_running_loop().call_soon(self._connection.advance)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()
