"""How often to try again, and after how long (async: it sleeps)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from lamina.distribution.failures import Unreachable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """At most `attempts` tries; the pause doubles from `first_pause_s` up to `longest_pause_s`."""

    attempts: int = 5
    first_pause_s: float = 0.25
    longest_pause_s: float = 5.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def pause(self, failures: int) -> None:
        """Wait after the `failures`-th failure in a row (from 1)."""
        await self.sleep(min(self.longest_pause_s, self.first_pause_s * 2 ** (failures - 1)))

    async def run(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do `step` until it succeeds, or fails for another reason than a registry out of reach, or too often."""
        failures = 0
        while True:
            try:
                return await step()
            except Unreachable as error:
                failures += 1
                # Nobody listens, no such name: asking again at once changes nothing, and a person waits.
                if failures >= self.attempts or error.is_settled:
                    raise
                await self.pause(failures)
