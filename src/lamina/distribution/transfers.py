"""Work that several pulls want at once is done once, and watched by all of them (async).

A transfer belongs to nobody who waits for it: it goes on while one of them is left, and is cancelled with the last.
Its result is kept while somebody has use for it, then it is released.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from lamina.errors import Unavailable
from lamina.wire.engine.progress import Progress, ProgressSink

T = TypeVar("T")


class _Transfer(Generic[T]):
    def __init__(self) -> None:
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.watchers: list[ProgressSink] = []
        self.latest: Progress | None = None

    def tell(self, step: Progress) -> None:
        self.latest = step
        for watcher in self.watchers:
            watcher(step)


class Transfers(Generic[T]):
    """Transfers by key. Enter it for the life of the daemon; leaving it cancels what is under way."""

    def __init__(self, release: Callable[[T], Awaitable[None]]) -> None:
        self._release = release
        self._group = asyncio.TaskGroup()
        self._transfers: dict[Hashable, _Transfer[T]] = {}

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for transfer in list(self._transfers.values()):
            if transfer.task is not None:
                transfer.task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup:
            if error is None:
                raise
            # The group would wrap what came out of the `with`; it goes on as it is.

    @asynccontextmanager
    async def joined(
        self, key: Hashable, work: Callable[[ProgressSink], Awaitable[T]], progress: ProgressSink
    ) -> AsyncIterator[T]:
        """The result of the transfer `key`, begun with `work` if nobody has; it stays as long as the `with` lasts.

        Raises:
            Unavailable: the daemon is stopping.
            Whatever `work` raises, to everybody who waits.
        """
        transfer = self._transfers.get(key)
        if transfer is None:
            transfer = self._transfers[key] = _Transfer()
            transfer.task = self._group.create_task(self._carry_out(transfer, work))
        elif transfer.latest is not None:
            progress(transfer.latest)
        transfer.watchers.append(progress)
        try:
            yield await asyncio.shield(transfer.result)
        finally:
            transfer.watchers.remove(progress)
            if not transfer.watchers:
                await self._end(key, transfer)

    async def _end(self, key: Hashable, transfer: _Transfer[T]) -> None:
        """The last watcher has left. Whoever comes now begins anew."""
        if self._transfers.get(key) is transfer:
            del self._transfers[key]
        if transfer.task is not None and not transfer.task.done():
            transfer.task.cancel()
            await asyncio.wait([transfer.task])
        if transfer.result.done() and not transfer.result.cancelled() and transfer.result.exception() is None:
            await self._release(transfer.result.result())

    async def _carry_out(self, transfer: _Transfer[T], work: Callable[[ProgressSink], Awaitable[T]]) -> None:
        try:
            found = await work(transfer.tell)
        except asyncio.CancelledError:
            transfer.result.set_exception(Unavailable("the transfer was given up: nobody waits for it any more"))
            raise
        except Exception as error:  # noqa: BLE001 - the owner of the task: whoever waits gets the error
            transfer.result.set_exception(error)
        else:
            transfer.result.set_result(found)
        finally:
            with suppress(Exception):
                transfer.result.exception()  # whoever waited may have gone just now: no warning about that
