"""Bytes out of a blocking writer."""

from __future__ import annotations

import asyncio

import pytest

from lamina.engine.outflow import Outflow, stream
from lamina.errors import DataLoss
from lamina.workers import Workers


async def gathered(writer) -> list[bytes]:
    return [piece async for piece in stream(Workers(), writer)]


def test_everything_comes_out_in_order() -> None:
    def write(out: Outflow) -> None:
        for number in range(100):
            out.write(bytearray([number]) * 300_000)

    assert b"".join(asyncio.run(gathered(write))) == b"".join(bytes([number]) * 300_000 for number in range(100))


def test_an_error_comes_after_what_was_written() -> None:
    seen: list[bytes] = []

    def write(out: Outflow) -> None:
        out.write(b"before")
        raise DataLoss("damaged")

    async def run() -> None:
        async for piece in stream(Workers(), write):
            seen.append(piece)

    with pytest.raises(DataLoss, match="damaged"):
        asyncio.run(run())
    assert seen == [b"before"]


def test_a_writer_ends_when_nobody_reads_any_more() -> None:
    ended: list[str] = []

    def write(out: Outflow) -> None:
        try:
            while True:
                out.write(bytes(1 << 20))
        except BrokenPipeError:
            ended.append("told")
            raise

    async def run() -> None:
        pieces = stream(Workers(), write)
        assert len(await anext(pieces)) == 1 << 20
        await pieces.aclose()
        assert ended == ["told"]

    asyncio.run(run())
