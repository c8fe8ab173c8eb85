"""Clients attached to a container's streams (async).

Output is read from the journal, by each client at its own speed and from its own place, so a slow client loses nothing
and holds nobody up. Standard input goes to the monitor; who attaches before the start gets everything from the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from lamina.containers.logfile import JournalReader
from lamina.containers.logs import LogReader
from lamina.containers.runs import Run
from lamina.errors import Unavailable
from lamina.workers import Workers

Output = tuple[int, bytes]
"""Stream (1 stdout, 2 stderr) and bytes."""


class AttachSession(Protocol):
    """One client on the streams of a container or an exec."""

    tty: bool

    def output(self) -> AsyncIterator[Output]:
        """What the process writes, in order; ends when everything is delivered."""

    async def write_stdin(self, data: bytes) -> None:
        """Hand bytes to the process; returns when they are taken. Raises Unavailable when nobody reads any more."""

    async def close_stdin(self) -> None:
        """The client has sent its last byte. Again is fine."""

    async def aclose(self) -> None:
        """The client is gone; the process goes on. Again is fine."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams a client asked for, and whether from the start of the run or from now on."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    from_start: bool = True


class ContainerAttach:
    """A client of one run: the present one, or the next to come."""

    def __init__(
        self, workers: Workers, wanted: Wanted, *, tty: bool, leave: Callable[[ContainerAttach], None]
    ) -> None:
        """`leave` is told when the client goes before the run has come."""
        self.tty = tty
        self._workers = workers
        self._wanted = wanted
        self._leave = leave
        self._run: Run | None = None
        self._reader: JournalReader | None = None
        self._packets: asyncio.Queue[Output | None] | None = None
        self._known = asyncio.Event()
        self.history: LogReader | None = None
        """What to deliver first."""
        self._closed = False
        self._present_only = False

    def begin(self, run: Run) -> None:
        """The run is there. Takes hold of its journal before anybody can remove it."""
        self._run = run
        if self._wanted.stdout or self._wanted.stderr:
            if run.journal_fd >= 0:
                self._reader = run.reader(from_start=self._wanted.from_start)
            else:
                self._packets = run.listen()
        self._known.set()

    def cancel(self) -> None:
        """No run will come: the start failed, or the container was removed."""
        self._known.set()

    def stop_at_present(self) -> None:
        """Deliver what is there now, and end."""
        self._present_only = True

    async def output(self) -> AsyncIterator[Output]:
        while self.history is not None and (found := await self._workers.call(self.history.read)) is not None:
            for entry in found:
                if self._wants(entry.stream):
                    yield entry.stream, entry.data
        await self._known.wait()
        source = self._from_packets() if self._packets is not None else self._from_journal()
        async for stream, data in source:
            if self._wants(stream):
                yield stream, data

    def _wants(self, stream: int) -> bool:
        return self._wanted.stdout if stream == 1 else self._wanted.stderr

    async def _from_journal(self) -> AsyncIterator[Output]:
        run, reader = self._run, self._reader
        if run is None or reader is None:
            if run is not None:
                await run.wait_ended()
            return
        while not self._closed:
            seen, ended = run.growth.count, run.ended
            while (found := await self._workers.call(reader.read)) is not None:
                for output in found:
                    yield output
            if ended or self._present_only:
                run.leave_reader(reader)
                return
            await run.growth.after(seen)

    async def _from_packets(self) -> AsyncIterator[Output]:
        while self._packets is not None:
            output = await self._packets.get()
            if output is None:
                return
            yield output

    async def write_stdin(self, data: bytes) -> None:
        if not self._wanted.stdin:
            return
        await self._known.wait()
        if self._run is None:
            raise Unavailable("the container was not started")
        await self._run.write_stdin(data)

    async def close_stdin(self) -> None:
        """A terminal's input never ends; and only StdinOnce ends it with its client, as with Docker."""
        if not self._wanted.stdin or self.tty:
            return
        await self._known.wait()
        if self._run is not None and self._run.stdin_once:
            await self._run.close_stdin()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.history is not None:
            await self._workers.call(self.history.close)
        if self._run is None:
            self._leave(self)
        elif self._packets is not None:
            self._run.unlisten(self._packets)
        if self._wanted.stdin and not self.tty and self._known.is_set():
            await self.close_stdin()
        self._known.set()
        if self._reader is not None:
            if self._run is not None:
                self._run.leave_reader(self._reader)
            await self._workers.call(self._reader.close)
