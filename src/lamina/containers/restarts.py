"""Containers that are between two runs: each has a pause to sit out before it is started again (async)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lamina.containers.record import Container
from lamina.containers.restart import next_pause_s, restart_policy
from lamina.ids import ContainerId


class Restarts:
    """The pauses of this daemon's containers. `start` starts one again, and deals with its own failure."""

    def __init__(self, tasks: asyncio.TaskGroup, start: Callable[[Container], Awaitable[None]]) -> None:
        self._tasks = tasks
        self._start = start
        self._pauses: dict[ContainerId, float] = {}
        self._pending: dict[ContainerId, asyncio.Task[None]] = {}

    def wanted(self, container: Container, exit_code: int) -> bool:
        """Does the container's policy want another run after this end? Somebody who stopped it has the last word."""
        return restart_policy(container.host_config).after_exit(
            exit_code=exit_code, restarts=container.restart_count, by_hand=container.has_been_manually_stopped
        )

    def schedule(self, container: Container, ran_s: float) -> None:
        """Start the container after its pause; `ran_s` is how long the last run took."""
        pause_s = next_pause_s(self._pauses.get(container.id, 0.0), ran_s)
        self._pauses[container.id] = pause_s
        task = self._tasks.create_task(self._after(container, pause_s))
        self._pending[container.id] = task
        task.add_done_callback(lambda done: self._done(container.id, done))

    def _done(self, container_id: ContainerId, task: asyncio.Task[None]) -> None:
        if self._pending.get(container_id) is task:
            del self._pending[container_id]

    async def _after(self, container: Container, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        # From here on it cannot be called off: `start` looks at the state again under the container's lock.
        self._pending.pop(container.id, None)
        await self._start(container)

    def call_off(self, container_id: ContainerId) -> None:
        """No next start. Nothing scheduled is fine."""
        task = self._pending.pop(container_id, None)
        if task is not None:
            task.cancel()

    def forget(self, container_id: ContainerId) -> None:
        """Somebody started it, or it is gone: call off, and begin with a short pause the next time."""
        self.call_off(container_id)
        self._pauses.pop(container_id, None)

    async def aclose(self) -> None:
        """Call everything off; the next daemon finds the containers waiting. Again is fine."""
        pending = tuple(self._pending.values())
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
