"""One server connection: framing before the library's parser, time limits, and leaving HTTP for raw bytes (async).

Rules for editors: aiohttp is pinned, because this builds on inner parts of its `RequestHandler`: `data_received`,
`eof_received`, `connection_lost`, `finish_response`, `handle_error`, `_messages`, `_waiter`, `_force_close`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from aiohttp.web_server import Server

from lamina.http.framing import BadRequest, Head, RequestFraming
from lamina.http.hijack import RawConnection
from lamina.http.keeper import ConnectionKeeper

HELD_BYTES = 256 << 10


class EngineConnection(RequestHandler):
    """HTTP requests one after the other, until one of them takes the connection over."""

    __slots__ = (
        "_client_ended",
        "_ends_with_client",
        "_finished",
        "_framed",
        "_framing",
        "_head_timer",
        "_held",
        "_held_paused",
        "_held_request",
        "_keeper",
        "_raw",
    )

    def __init__(self, native: Server, keeper: ConnectionKeeper, **options: Any) -> None:  # noqa: ANN401 (the library's own options)
        super().__init__(native, **options)
        self._keeper = keeper
        self._framing = RequestFraming()
        self._framed = 0  # requests whose head came in
        self._finished = 0  # requests that were answered
        self._held: bytearray | None = None
        self._held_request = 0
        self._held_paused = False
        self._client_ended = False
        self._raw: RawConnection | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._ends_with_client: asyncio.Task[Any] | None = None

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._keeper.idle_begins(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._keeper.gone(self)
        self._stop_head_timer()
        if self._raw is not None:
            self._raw.feed_lost()
        task, self._ends_with_client = self._ends_with_client, None
        super().connection_lost(exc)
        if task is not None:
            task.cancel()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio allows a truthy answer: stay open
        if self._raw is not None:
            self._raw.feed_end()
            return True
        if self._held is not None:
            self._client_ended = True
            return True
        return None

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.feed(data)
            return
        if self._held is not None:
            self._hold(data)
            return
        if not data:
            super().data_received(data)  # the library asks itself to go on parsing
            return
        while data and not self._force_close and not self._close:
            try:
                step = self._framing.advance(data)
            except BadRequest as error:
                self._refuse(error)
                return
            if step.begun is not None:
                self._head_complete(step.begun)
            if step.forward:
                super().data_received(step.forward)
            data = data[step.used :] if step.used < len(data) else b""
            if step.ended and self._held_request == self._framed:
                self._held = bytearray()
                self._hold(data)
                return
        if self._framing.head_begun and self._head_timer is None:
            self._head_timer = self._loop.call_later(self._keeper.limits.head_s, self._head_is_late)

    # -- what requests ask for

    def cancel_when_lost(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel the task that answers the current request as soon as the client goes away."""
        self._ends_with_client = task
        if self.transport is None and task is not None:
            self._ends_with_client = None
            task.cancel()

    def stop_following(self) -> None:
        """The server stops: end a request that would otherwise go on as long as its client."""
        task, self._ends_with_client = self._ends_with_client, None
        if task is not None:
            task.cancel()

    def write_continue(self) -> None:
        """Tell a client that asked whether to send its body: do."""
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def take_over(self, head: bytes) -> RawConnection:
        """Leave HTTP: send `head`, hand over what arrived early and everything after it.

        Raises:
            ConnectionResetError: the client is gone.
        """
        if self.transport is None:
            raise ConnectionResetError("the client went away")
        if self._held is None:
            raise RuntimeError("only a request that the application names in `takes_over` can be taken over")
        early, self._held = bytes(self._held), None
        self._raw = RawConnection(self.transport, self._drain_helper, early, paused=self._held_paused)
        self.transport.write(head)
        if self._client_ended:
            self._raw.feed_end()
        return self._raw

    # -- inner parts

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        self._ends_with_client = None
        finished = await super().finish_response(request, resp, start_time)
        self._finished += 1
        if self._held is not None and self._finished == self._held_request:
            self._release()
        if self.transport is not None and not self._messages and self._raw is None:
            self._keeper.idle_begins(self)
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            self.logger.debug("the client went away: %s %s", request.method, request.path)
        elif status >= 500:
            self.logger.error("request failed: %s %s", request.method, request.path, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, no other can be sent")
        text = message or (str(exc) if exc is not None and status < 500 else "") or "internal error, see the log"
        body = json.dumps({"message": text}).encode() + b"\n"
        response = web.Response(status=status, body=body, content_type="application/json")
        response.headers["Server"] = "Lamina (linux)"
        response.force_close()
        return response

    def _head_complete(self, head: Head) -> None:
        self._stop_head_timer()
        self._framed += 1
        self._keeper.idle_ends(self)
        if self._keeper.takes_over(head.method, head.target):
            self._held_request = self._framed

    def _hold(self, data: bytes) -> None:
        assert self._held is not None
        self._held += data
        if len(self._held) >= HELD_BYTES and not self._held_paused and self.transport is not None:
            self._held_paused = True
            self.transport.pause_reading()

    def _release(self) -> None:
        """The request did not take the connection over: what waited behind it is the next request."""
        held, self._held = self._held, None
        if self._held_paused and self.transport is not None:
            self._held_paused = False
            self.transport.resume_reading()
        if held:
            self.data_received(bytes(held))
        if self._client_ended:
            self.close()

    def _refuse(self, error: BadRequest) -> None:
        self._stop_head_timer()
        self._keeper.idle_ends(self)
        refusal = _ErrInfo(status=error.status, exc=error, message=error.message)
        self._messages.append((refusal, EMPTY_PAYLOAD))
        self._request_count += 1
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        self._framing.give_up()

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._framing.head_begun:
            self._refuse(BadRequest("the request head did not arrive in time", status=408))

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
