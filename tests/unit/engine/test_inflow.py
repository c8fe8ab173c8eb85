"""Bytes into a blocking reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from lamina.engine.inflow import carry
from lamina.errors import InvalidArgument
from lamina.workers import Workers


async def chunks(count: int, size: int, fail: bool = False) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size
    if fail:
        raise OSError("line cut")


def test_everything_arrives_in_order_and_the_result_comes_back() -> None:
    async def run() -> bytes:
        return await carry(Workers(), chunks(100, 300_000), b"".join)

    found = asyncio.run(run())
    assert found == b"".join(bytes([number]) * 300_000 for number in range(100))


def test_an_error_of_the_sender_reaches_the_reader() -> None:
    seen: list[BaseException] = []

    def read(pieces: Iterator[bytes]) -> None:
        try:
            for _ in pieces:
                pass
        except ConnectionAbortedError as error:
            seen.append(error)
            raise

    with pytest.raises(ConnectionAbortedError, match="the sender went away"):
        asyncio.run(carry(Workers(), chunks(3, 10, fail=True), read))
    assert isinstance(seen[0].__cause__, OSError)


def test_a_reader_that_gives_up_is_answered_and_the_rest_dropped() -> None:
    def read(pieces: Iterator[bytes]) -> None:
        next(pieces)
        raise InvalidArgument("no")

    with pytest.raises(InvalidArgument, match="no"):
        asyncio.run(carry(Workers(), chunks(200, 1 << 20), read))


def test_a_caller_that_is_cancelled_ends_the_reader() -> None:
    ended: list[BaseException] = []

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    def read(pieces: Iterator[bytes]) -> None:
        try:
            for _ in pieces:
                started.set()
        except ConnectionAbortedError as error:
            ended.append(error)
            raise

    import threading

    started = threading.Event()

    async def run() -> None:
        task = asyncio.ensure_future(carry(Workers(), endless(), read))
        await asyncio.get_running_loop().run_in_executor(None, started.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert len(ended) == 1
