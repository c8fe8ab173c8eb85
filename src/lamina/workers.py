"""The one door from the event loop to blocking code: bounded threads (async).

Byte and tree work that would hold the interpreter lock runs in worker processes instead: `lamina.layers.pool`.
A cancelled caller waits until its thread is done, so no write is abandoned half way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CLIENTS = 256
"""Threads that may wait for clients at once."""


class Workers:
    """Threads for blocking calls, and locks by key for work that must not overlap."""

    def __init__(self, threads: int = 16) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="lamina")
        self._patient = ThreadPoolExecutor(max_workers=_CLIENTS, thread_name_prefix="lamina-client")
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    async def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread; its result or error comes back."""
        return await _carried_out(self._pool, lambda: fn(*args, **kwargs))

    async def call_at_clients_pace(self, fn: Callable[[], T]) -> T:
        """As `call`, for work that waits for what a client sends or takes: clients that stand still hold up nobody."""
        return await _carried_out(self._patient, fn)

    async def obtain(self, fn: Callable[[], T], undo: Callable[[T], object]) -> T:
        """Run a blocking call whose result must not get lost, such as a hold or a new object.

        When the caller is cancelled meanwhile, `undo` is run on the result, and then the cancellation goes on.
        """
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, fn)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await _ended(future)
            if future.exception() is None:
                undoing = loop.run_in_executor(self._pool, undo, future.result())
                await _ended(undoing)
            raise

    @contextlib.asynccontextmanager
    async def holding(self, key: Hashable) -> AsyncIterator[None]:
        """One at a time per key (a container, an image)."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)

    def close(self) -> None:
        """Wait for running calls and end the threads. Twice is fine."""
        self._patient.shutdown(wait=True)
        self._pool.shutdown(wait=True)


async def _carried_out(pool: ThreadPoolExecutor, fn: Callable[[], T]) -> T:
    future = asyncio.get_running_loop().run_in_executor(pool, fn)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _ended(future)  # the caller is gone: the thread's error has no reader
        raise


async def _ended(future: asyncio.Future[T]) -> None:
    """Wait for the thread, however often the caller is cancelled."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # looked at: no warning that nobody did
