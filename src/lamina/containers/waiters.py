"""Who waits for something to happen to a container: its next run, its end, its removal (async)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from lamina.containers.attach import ContainerAttach
from lamina.containers.record import Container
from lamina.containers.runs import Run
from lamina.ids import ContainerId


@dataclass(frozen=True, slots=True)
class WaitResult:
    """What a wait answers; `error` is empty unless the start failed."""

    status_code: int
    error: str = ""


Futures = dict[ContainerId, list[asyncio.Future[WaitResult]]]


@dataclass(slots=True)
class Waiters:
    """The waiting clients of all containers."""

    _exits: Futures = field(default_factory=dict)
    _removals: Futures = field(default_factory=dict)
    _sessions: dict[ContainerId, list[ContainerAttach]] = field(default_factory=dict)

    def for_exit(self, container: Container) -> asyncio.Future[WaitResult]:
        """Done at the next end of a run, or at the removal. Cancel it when nobody asks any more."""
        return _add(self._exits, container.id)

    def for_removal(self, container: Container) -> asyncio.Future[WaitResult]:
        """Done when the container is gone."""
        return _add(self._removals, container.id)

    def exited(self, container: Container) -> None:
        _answer(self._exits, container)

    def removed(self, container: Container) -> None:
        _answer(self._exits, container)
        _answer(self._removals, container)

    def for_run(self, container_id: ContainerId, session: ContainerAttach) -> None:
        """The session begins with the container's next run."""
        self._sessions.setdefault(container_id, []).append(session)

    def left(self, container_id: ContainerId, session: ContainerAttach) -> None:
        """The session's client went away."""
        sessions = self._sessions.get(container_id, [])
        if session in sessions:
            sessions.remove(session)
        if not sessions:
            self._sessions.pop(container_id, None)

    def begun(self, container_id: ContainerId, run: Run) -> None:
        for session in self._sessions.pop(container_id, []):
            session.begin(run)

    def none_begins(self, container_id: ContainerId) -> None:
        """The start failed, or the container goes: sessions end empty."""
        for session in self._sessions.pop(container_id, []):
            session.cancel()


def _add(pending: Futures, container_id: ContainerId) -> asyncio.Future[WaitResult]:
    future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
    waiting = pending.setdefault(container_id, [])
    waiting.append(future)
    # Who gives up waiting is forgotten at once.
    future.add_done_callback(lambda done: waiting.remove(done) if done in waiting else None)
    return future


def _answer(pending: Futures, container: Container) -> None:
    for future in pending.pop(container.id, []):
        if not future.done():
            future.set_result(WaitResult(container.state.exit_code))
