from __future__ import annotations

import asyncio
import json

from lamina.api.routes.streams import nine_digits
from lamina.api.streams import ProgressLines, closing
from lamina.wire.engine.progress import Progress


def test_figures_that_nobody_reads_are_replaced_by_newer_ones():
    async def scenario():
        lines = ProgressLines()
        lines.put(Progress(status="Pulling", id="a"))
        for current in range(10_000):
            lines.put(Progress(status="Downloading", id="a", current=current, total=10_000))
            lines.put(Progress(status="Downloading", id="b", current=current, total=10_000))
        lines.put(Progress(status="Done", id="a"))
        await lines.ready()
        told = [json.loads(line) for line in lines.take().splitlines()]
        assert [(line["status"], line["id"]) for line in told] == [
            ("Pulling", "a"), ("Downloading", "a"), ("Downloading", "b"), ("Done", "a"),
        ]  # fmt: skip
        assert told[1]["progressDetail"]["current"] == 9999
        assert lines.take() == b""

    asyncio.run(scenario())


def test_the_end_wakes_the_reader():
    async def scenario():
        lines = ProgressLines()
        lines.end()
        await lines.ready()
        assert lines.take() == b""

    asyncio.run(scenario())


def test_a_generator_is_closed_with_its_reader():
    closed = []

    async def items():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def scenario():
        async with closing(items()) as found:
            async for _ in found:
                break
        assert closed == [True]

    asyncio.run(scenario())


def test_times_have_nine_digits():
    assert nine_digits("2026-01-02T03:04:05Z") == "2026-01-02T03:04:05.000000000Z"
    assert nine_digits("2026-01-02T03:04:05.12Z") == "2026-01-02T03:04:05.120000000Z"
