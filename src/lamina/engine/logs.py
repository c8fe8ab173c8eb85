"""What a container has written, and what it writes from now on (async)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from lamina.clock import Clock
from lamina.containers.journal import LogEntry
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.logs import LogReader, sortable, sortable_ns
from lamina.containers.runs import Run
from lamina.containers.store import ContainerStore
from lamina.engine.services import LogWanted
from lamina.errors import Unsupported
from lamina.jsonvalue import mapping, text
from lamina.workers import Workers

_READABLE = ("", "json-file")


@dataclass(frozen=True, slots=True)
class Logs:
    """A container's log, oldest first."""

    store: ContainerStore
    lifecycle: Lifecycle
    workers: Workers
    clock: Clock

    async def __call__(self, ref: str, wanted: LogWanted) -> AsyncIterator[LogEntry]:
        """With `follow`, ends when the container has ended and everything is delivered; no line is missed.

        Raises:
            NoSuchContainer: no such container.
            Unsupported: its log driver keeps nothing that could be read.
        """
        container = self.store.resolve(ref)
        if text(mapping(container.host_config, "LogConfig"), "Type") not in _READABLE:
            raise Unsupported("configured logging driver does not support reading")
        present = self.lifecycle.run_of(container)
        run = present if wanted.follow else None
        directory = self.store.directory(container.id)
        live = present.parts if present is not None else None
        reader = await self.workers.call(LogReader, directory, container.id, tail=wanted.tail, live=live)
        limit_s = None
        if wanted.until_ns is not None and run is not None:
            limit_s = max(0.0, (wanted.until_ns - self.clock.now_ns()) / 1e9)
        try:
            async for entry in self._entries(reader, run, limit_s):
                verdict = _judge(entry, wanted)
                if verdict is None:
                    return
                if verdict:
                    yield entry
        finally:
            await self.workers.call(reader.close)

    async def _entries(self, reader: LogReader, run: Run | None, limit_s: float | None) -> AsyncIterator[LogEntry]:
        until = None if limit_s is None else self.clock.monotonic() + limit_s
        while True:
            seen = run.logged.count if run else 0
            last = run is None or run.settled.is_set() or (until is not None and self.clock.monotonic() >= until)
            while (found := await self.workers.call(reader.read)) is not None:
                for entry in found:
                    yield entry
            if last or run is None:
                return
            await self._more(run, seen, until)

    async def _more(self, run: Run, seen: int, until: float | None) -> None:
        left = None if until is None else max(0.0, until - self.clock.monotonic())
        try:
            async with asyncio.timeout(left):
                await run.logged.after(seen)
        except TimeoutError:
            return


def _judge(entry: LogEntry, wanted: LogWanted) -> bool | None:
    """True: deliver; False: leave out; None: this and all later ones are too late."""
    stamp = sortable(entry.time)
    if wanted.until_ns is not None and stamp > sortable_ns(wanted.until_ns):
        return None
    if wanted.since_ns is not None and stamp < sortable_ns(wanted.since_ns):
        return False
    return wanted.stdout if entry.stream == 1 else wanted.stderr
