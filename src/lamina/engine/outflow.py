"""Bytes from a blocking writer in a thread to the event loop, a few megabytes ahead at most (async)."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable

from lamina.workers import Workers

_AHEAD_BYTES = 8 << 20


async def stream(workers: Workers, writer: Callable[[Outflow], object]) -> AsyncIterator[bytes]:
    """What `writer`, run in a thread, writes; its error comes after what it wrote before.

    When the iterator is closed early, the writer's next `write` raises BrokenPipeError, and its end is waited for.
    """
    outflow = Outflow(asyncio.get_running_loop())

    def run() -> None:
        try:
            writer(outflow)
        finally:
            outflow.end()

    running = asyncio.ensure_future(workers.call_at_clients_pace(run))
    try:
        while (chunk := await outflow.take()) is not None:
            yield chunk
        await running
    finally:
        outflow.refuse()
        if not running.done():
            await asyncio.gather(running, return_exceptions=True)


class Outflow:
    """The queue between the two."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._has_ended = False
        self._is_refused = False
        self._changed = threading.Condition()
        self._there = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Hand over data, waiting for room. In the thread.

        Raises:
            BrokenPipeError: nobody wants it any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < _AHEAD_BYTES or self._is_refused)
            if self._is_refused:
                raise BrokenPipeError("the receiver went away")
            was_empty = not self._chunks
            self._chunks.append(data if isinstance(data, bytes) else bytes(data))
            self._bytes += len(data)
        if was_empty:
            self._loop.call_soon_threadsafe(self._there.set)
        return len(data)

    def end(self) -> None:
        """Nothing more comes. In the thread."""
        with self._changed:
            self._has_ended = True
        self._loop.call_soon_threadsafe(self._there.set)

    def refuse(self) -> None:
        """Nothing more is wanted. On the loop."""
        with self._changed:
            self._is_refused = True
            self._chunks.clear()
            self._changed.notify()

    async def take(self) -> bytes | None:
        """The next piece, None at the end. On the loop."""
        while True:
            with self._changed:
                if self._chunks:
                    chunk = self._chunks.popleft()
                    self._bytes -= len(chunk)
                    self._changed.notify()
                    return chunk
                if self._has_ended:
                    return None
                self._there.clear()
            await self._there.wait()
