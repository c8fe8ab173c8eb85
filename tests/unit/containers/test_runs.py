"""Turns, and being told of growing journals."""

import asyncio
from pathlib import Path

from lamina.containers.runs import JournalWatch, Turn


def test_a_turn_that_happened_before_the_wait_is_not_missed() -> None:
    async def scenario() -> None:
        turn = Turn()
        seen = turn.count
        turn.happened()
        await turn.after(seen)
        waiting = [asyncio.ensure_future(turn.after(turn.count)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        turn.happened()
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)

    asyncio.run(scenario())


def test_each_journal_has_its_own_turns(tmp_path: Path) -> None:
    async def scenario() -> None:
        watch = JournalWatch()
        turns = []
        for name in ("one", "two"):
            (tmp_path / name).touch()
            turns.append(Turn())
            number = watch.watch(tmp_path / name, turns[-1])
        with (tmp_path / "one").open("ab") as file:
            file.write(b"x")
        async with asyncio.timeout(5):
            await turns[0].after(0)
        assert turns[1].count == 0
        watch.unwatch(number)
        watch.unwatch(number)
        watch.close()
        watch.close()

    asyncio.run(scenario())
