"""Serves an application on sockets that are bound already (async)."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from lamina.errors import InvalidArgument
from lamina.http.connection import EngineConnection
from lamina.http.exchange import Answer, Application, Request, Stream, Via, set_headers, split_target
from lamina.http.framing import MAX_HEAD_BYTES
from lamina.http.hijack import RawConnection, Sent
from lamina.http.keeper import ConnectionKeeper, Limits
from lamina.http.tls import TlsConnection

_log = logging.getLogger("lamina.http")

BACKLOG = 4096


class HttpServer:
    """One application on any number of sockets."""

    def __init__(self, app: Application, limits: Limits | None = None) -> None:
        self._app = app
        self._limits = limits or Limits()
        self._native = Server(self._answer, access_log=None)
        self._keeper = ConnectionKeeper(app.takes_over, self._limits)
        self._listeners: list[asyncio.Server] = []

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Begin to serve a bound stream socket (unix or TCP), which is the server's from now on."""
        loop = asyncio.get_running_loop()
        connect = self._connect if tls is None else lambda: TlsConnection(tls, self._connect)
        listener = await loop.create_server(connect, sock=sock, backlog=BACKLOG)
        self._listeners.append(listener)

    async def close(self, grace_s: float = 10.0) -> None:
        """Stop listening, end what only follows, give other requests `grace_s` to finish. Twice is fine."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in self._native.connections:
            if isinstance(connection, EngineConnection):
                connection.stop_following()
        await self._native.shutdown(grace_s)

    def _connect(self) -> RequestHandler:
        return EngineConnection(
            self._native,
            self._keeper,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._limits.idle_s,
            logger=_log,
            access_log=None,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            lingering_time=self._limits.linger_s,
            auto_decompress=False,
        )

    async def _answer(self, native: web.BaseRequest) -> web.StreamResponse:
        connection = native.protocol
        assert isinstance(connection, EngineConnection)
        try:
            path, query = split_target(native._message.path)  # noqa: SLF001 (the target as it came)
        except InvalidArgument as error:
            return connection.handle_error(native, 400, error)
        request = Request(native.method, path, query, native.headers, _via(native), native, connection)
        answer: Answer = await self._app(request)
        return _respond(answer)


def _via(native: web.BaseRequest) -> Via:
    transport = native.transport
    if transport is None:
        raise ConnectionResetError("the client went away")
    if transport.get_extra_info("ssl_object") is not None:
        return Via.TLS
    sock = transport.get_extra_info("socket")
    return Via.UNIX if sock is not None and sock.family == socket.AF_UNIX else Via.TCP


def _respond(answer: Answer) -> web.StreamResponse:
    if isinstance(answer, Stream):
        return answer.response
    if isinstance(answer, Sent):
        return _TakenOver(answer)
    response = web.Response(status=answer.status, body=answer.body)
    set_headers(response, answer.headers)
    if answer.close:
        response.force_close()
    return response


class _TakenOver(web.StreamResponse):
    """Stands for an answer that left HTTP: nothing more is written, the connection ends."""

    def __init__(self, sent: Sent) -> None:
        super().__init__(status=101)
        self.force_close()
        if isinstance(sent, RawConnection):
            sent.close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None
