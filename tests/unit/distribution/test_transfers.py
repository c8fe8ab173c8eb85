from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lamina.distribution.transfers import Transfers
from lamina.errors import NotFound, Unavailable
from lamina.wire.engine.progress import Progress, ProgressSink, discard


class Work:
    """Work that goes on until it is told to end; counts what happens to it."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.go_on = asyncio.Event()
        self.under_way = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, progress: ProgressSink) -> str:
        self.begun += 1
        progress(Progress(status="under way"))
        self.under_way.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return "result"


Case = Callable[[Transfers[str], Work, list[str]], Awaitable[None]]


def play(case: Case) -> None:
    async def run() -> None:
        released: list[str] = []

        async def release(result: str) -> None:
            released.append(result)

        async with Transfers[str](release) as transfers:
            await case(transfers, Work(), released)

    asyncio.run(asyncio.wait_for(run(), 20))


async def use(transfers: Transfers[str], work: Work, sink: ProgressSink = discard) -> str:
    async with transfers.joined("key", work, sink) as found:
        return found


def test_two_who_want_the_same_get_it_from_one() -> None:
    async def case(transfers: Transfers[str], work: Work, released: list[str]) -> None:
        told: list[Progress] = []
        async with asyncio.TaskGroup() as group:
            first = group.create_task(use(transfers, work))
            await work.under_way.wait()
            second = group.create_task(use(transfers, work, told.append))
            await asyncio.sleep(0)
            work.go_on.set()
        assert (first.result(), second.result()) == ("result", "result")
        assert work.begun == 1
        assert [step.status for step in told] == ["under way"]
        assert released == ["result"]

    play(case)


def test_it_goes_on_when_the_one_who_began_it_leaves() -> None:
    async def case(transfers: Transfers[str], work: Work, released: list[str]) -> None:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(use(transfers, work))
            await work.under_way.wait()
            second = group.create_task(use(transfers, work))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            assert work.cancelled == 0
            work.go_on.set()
            assert await second == "result"
        assert (work.begun, released) == (1, ["result"])

    play(case)


def test_it_ends_with_the_last_who_wants_it_and_begins_anew() -> None:
    async def case(transfers: Transfers[str], work: Work, released: list[str]) -> None:
        async with asyncio.TaskGroup() as group:
            only = group.create_task(use(transfers, work))
            await work.under_way.wait()
            only.cancel()
            await asyncio.wait([only])
            assert (work.cancelled, released) == (1, [])
            work.go_on.set()
            assert await use(transfers, work) == "result"
        assert (work.begun, released) == (2, ["result"])

    play(case)


def test_an_error_is_everybody_s_and_the_next_one_begins_anew() -> None:
    async def case(transfers: Transfers[str], work: Work, released: list[str]) -> None:
        work.error = NotFound("gone")
        results = asyncio.gather(use(transfers, work), use(transfers, work), return_exceptions=True)
        await work.under_way.wait()
        work.go_on.set()
        assert [type(found) for found in await results] == [NotFound, NotFound]
        work.error = None
        assert await use(transfers, work) == "result"
        assert (work.begun, released) == (2, ["result"])

    play(case)


def test_the_result_is_released_when_nobody_uses_it_any_more() -> None:
    async def case(transfers: Transfers[str], work: Work, released: list[str]) -> None:
        work.go_on.set()
        async with transfers.joined("key", work, discard):
            async with transfers.joined("key", work, discard):
                pass
            assert released == []
        assert (work.begun, released) == (1, ["result"])

    play(case)


def test_stopping_tells_whoever_waits() -> None:
    async def run() -> None:
        async def release(_: str) -> None:
            raise AssertionError("there is nothing to release")

        work = Work()
        async with asyncio.TaskGroup() as group:
            async with Transfers[str](release) as transfers:
                waiting = group.create_task(_outcome(use(transfers, work)))
                await work.under_way.wait()
            assert isinstance(await waiting, Unavailable)

    asyncio.run(asyncio.wait_for(run(), 20))


async def _outcome(waiting: Awaitable[str]) -> BaseException | str:
    with pytest.raises(Unavailable) as failure:
        return await waiting
    return failure.value
