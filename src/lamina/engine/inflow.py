"""Bytes from the event loop to a blocking reader in a thread, a few megabytes ahead at most (async).

One side belongs to the loop, the other to the thread; see `carry`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from lamina.workers import Workers

T = TypeVar("T")
_AHEAD_BYTES = 8 << 20
_DISCARD_BYTES = 64 << 20


async def carry(workers: Workers, chunks: AsyncIterator[bytes], reader: Callable[[Iterator[bytes]], T]) -> T:
    """Run `reader` in a thread on the bytes that `chunks` brings; its result or error comes back.

    An error of `chunks` is raised in the reader and then here. When the reader ends early, some of what still comes is
    read and dropped, so that the sender gets the answer rather than a broken connection.
    """
    inflow = Inflow(asyncio.get_running_loop())

    def run() -> T:
        try:
            return reader(iter(inflow))
        finally:
            inflow.stop()

    # When the caller is cancelled, the pump ends first; that ends the reader, and its thread is waited for.
    pumped, outcome = await asyncio.gather(
        _pump(chunks, inflow), workers.call_at_clients_pace(run), return_exceptions=True
    )
    if isinstance(outcome, BaseException):
        raise outcome
    if isinstance(pumped, BaseException):
        raise pumped
    return outcome


async def _pump(chunks: AsyncIterator[bytes], inflow: Inflow) -> None:
    dropped = 0
    try:
        async for chunk in chunks:
            if not await inflow.put(chunk):
                dropped += len(chunk)
                if dropped > _DISCARD_BYTES:
                    return
    except BaseException as error:
        inflow.end(error)
        raise
    inflow.end(None)


class Inflow:
    """The queue between the two."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._has_ended = False
        self._error: BaseException | None = None
        self._is_stopped = False
        self._changed = threading.Condition()
        self._room = asyncio.Event()

    async def put(self, chunk: bytes) -> bool:
        """Hand over a chunk, waiting for room; False when the reader wants no more. On the loop."""
        with self._changed:
            if self._is_stopped:
                return False
            self._chunks.append(chunk)
            self._bytes += len(chunk)
            is_full = self._bytes > _AHEAD_BYTES
            if is_full:
                self._room.clear()
            self._changed.notify()
        if is_full:
            await self._room.wait()
        return True

    def end(self, error: BaseException | None) -> None:
        """Nothing more comes; with `error`, something that should have. On the loop."""
        with self._changed:
            self._has_ended = True
            self._error = error
            self._changed.notify()

    def stop(self) -> None:
        """The reader wants no more. In the thread."""
        with self._changed:
            self._is_stopped = True
            self._chunks.clear()
        self._loop.call_soon_threadsafe(self._room.set)

    def __iter__(self) -> Iterator[bytes]:
        """The chunks, waiting for each. In the thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks or self._has_ended)
                if not self._chunks:
                    if self._error is not None:
                        raise ConnectionAbortedError("the sender went away") from self._error
                    return
                was_full = self._bytes > _AHEAD_BYTES
                chunk = self._chunks.popleft()
                self._bytes -= len(chunk)
                wakes = was_full and self._bytes <= _AHEAD_BYTES
            if wakes:
                self._loop.call_soon_threadsafe(self._room.set)
            yield chunk
