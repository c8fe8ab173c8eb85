"""Answers that grow: progress as JSON lines, archives, events (async)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from lamina.api.errors import message_of
from lamina.api.routing import Call
from lamina.http.exchange import Answer, Headers, Stream
from lamina.jsonvalue import JsonObject, go_json
from lamina.wire.engine.progress import Progress, ProgressSink, encode, encode_error

T = TypeVar("T")

_log = logging.getLogger("lamina.api")

UPDATE_S = 0.1
"""How long figures may wait for newer ones, as nobody reads faster."""


class ProgressLines:
    """Steps in, JSON lines out; of the figures about one thing only the newest waits.

    So a client that does not read costs a line per thing and state, however long the work goes on.
    """

    def __init__(self) -> None:
        self._pending: list[Progress] = []
        self._figures: dict[tuple[str, str], int] = {}
        self._something = asyncio.Event()
        self._urgent = asyncio.Event()

    def put(self, step: Progress) -> None:
        """A sink; never waits."""
        if step.current is None:
            self._pending.append(step)
            self._urgent.set()
        else:
            key = (step.id, step.status)
            at = self._figures.get(key)
            if at is None:
                self._figures[key] = len(self._pending)
                self._pending.append(step)
            else:
                self._pending[at] = step
        self._something.set()

    def end(self) -> None:
        """No step follows."""
        self._something.set()
        self._urgent.set()

    async def ready(self) -> None:
        """Wait until there is something to send, or the end."""
        await self._something.wait()
        try:
            async with asyncio.timeout(UPDATE_S):
                await self._urgent.wait()
        except TimeoutError:
            return  # only figures wait, and for long enough

    def take(self) -> bytes:
        """The lines of all steps that wait; may be empty."""
        self._something.clear()
        self._urgent.clear()
        steps, self._pending = self._pending, []
        self._figures.clear()
        return b"".join(go_json(encode(step)) + b"\r\n" for step in steps)


async def progress_answer(
    call: Call, work: Callable[[ProgressSink], Awaitable[object]], *, begin: bool = False
) -> Answer:
    """Run long work and tell of it line by line.

    An error before the first line is an answer of its own; later, or when the answer is to `begin` at once, it is the
    last line. The work is cancelled when the client goes away.
    """
    call.request.end_with_client()
    stream = call.request.stream(200, [("Content-Type", "application/json")])
    if begin:
        await stream.begin()
    failure = await _tell(stream, work)
    if failure is not None:
        if not stream.begun:
            raise failure
        _log.warning("%s failed: %s", call.operation, failure)
        await stream.write(go_json(encode_error(message_of(failure))) + b"\r\n")
    await stream.end()
    return stream


async def _tell(stream: Stream, work: Callable[[ProgressSink], Awaitable[object]]) -> Exception | None:
    lines = ProgressLines()
    outcome: list[Exception | None] = []

    async def run() -> None:
        try:
            await work(lines.put)
            outcome.append(None)
        except Exception as error:  # noqa: BLE001 (the request boundary: the stream is the answer)
            outcome.append(error)
        lines.end()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run())
            while not outcome:
                await lines.ready()
                if data := lines.take():
                    await stream.write(data)
    except* ConnectionError:
        raise ConnectionResetError("the client went away") from None
    return outcome[0]


async def bytes_answer(call: Call, chunks: AsyncIterator[bytes], headers: Headers) -> Answer:
    """Send bytes as they come. An error before the first is an answer of its own; later the connection is cut."""
    call.request.end_with_client()
    stream = call.request.stream(200, headers)
    async with closing(chunks):
        async for chunk in chunks:
            await stream.write(chunk)
    await stream.end()
    return stream


@asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """End a generator that is not read to its end, here and now and not when it is collected."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


def line(body: JsonObject) -> bytes:
    """One JSON line."""
    return go_json(body) + b"\n"
