from __future__ import annotations

import asyncio
import threading

import pytest

from lamina.workers import Workers


def test_a_result_that_nobody_takes_any_more_is_undone() -> None:
    async def run() -> None:
        workers = Workers(threads=2)
        begun, go_on, undone = asyncio.Event(), threading.Event(), []
        loop = asyncio.get_running_loop()

        def make() -> str:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(10)
            return "made"

        obtaining = asyncio.ensure_future(workers.obtain(make, undone.append))
        await begun.wait()
        obtaining.cancel()
        await asyncio.sleep(0)
        obtaining.cancel()  # cancelled twice: still waited for
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await obtaining
        assert undone == ["made"]
        assert await workers.obtain(lambda: "kept", undone.append) == "kept"
        assert undone == ["made"]
        workers.close()

    asyncio.run(run())


def test_an_error_comes_back_and_is_not_undone() -> None:
    async def run() -> None:
        workers = Workers(threads=2)
        undone: list[object] = []
        with pytest.raises(ZeroDivisionError):
            await workers.obtain(lambda: 1 // 0, undone.append)
        assert undone == []
        workers.close()

    asyncio.run(run())


def test_who_is_cancelled_twice_still_waits_for_the_thread() -> None:
    async def run() -> None:
        workers = Workers(threads=2)
        begun, go_on, done = asyncio.Event(), threading.Event(), []
        loop = asyncio.get_running_loop()

        def work() -> None:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(10)
            done.append("whole")

        calling = asyncio.ensure_future(workers.call(work))
        await begun.wait()
        for _ in range(3):
            calling.cancel()
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert done == ["whole"]
        workers.close()

    asyncio.run(run())


def test_clients_that_stand_still_leave_the_threads_to_others() -> None:
    async def run() -> None:
        workers = Workers(threads=2)
        go_on = threading.Event()
        still = [asyncio.ensure_future(workers.call_at_clients_pace(lambda: go_on.wait(10))) for _ in range(20)]
        try:
            async with asyncio.timeout(5):
                assert await workers.call(lambda: "served") == "served"
        finally:
            go_on.set()
        assert all(await asyncio.gather(*still))
        workers.close()

    asyncio.run(run())
