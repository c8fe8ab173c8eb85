"""A running container as the event loop sees it, and being told when a journal grows (async)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from pathlib import Path

from lamina.containers.log_parts import LogParts
from lamina.containers.logfile import JournalReader, Mark
from lamina.errors import Unavailable
from lamina.ids import ContainerId
from lamina.kernel import pidfd
from lamina.kernel.inotify import OVERFLOW, Inotify
from lamina.programs.conmon import STDIN_PACKET_BYTES, Monitor

_PACKETS = 256
_PACKET_BYTES = 64 << 10
_PATIENCE_S = 2.0
_CONMON_STDOUT = 2
"""First byte of a packet on the attach socket; 3 is stderr. Source: conmon src/ctr_stdio.h."""


class Turn:
    """Something that happens again and again; who waits names the last turn it has seen."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()

    def happened(self) -> None:
        self.count += 1
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, seen: int) -> None:
        """Return as soon as there was a turn later than `seen`."""
        while self.count == seen:
            await self._next.wait()


class JournalWatch:
    """One inotify descriptor of the event loop for the journals of all running containers."""

    def __init__(self) -> None:
        self._inotify = Inotify()
        self._turns: dict[int, Turn] = {}
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._told)

    def watch(self, journal: Path, turn: Turn) -> int:
        """Give `turn` a turn whenever the journal grows."""
        number = self._inotify.watch(journal)
        self._turns[number] = turn
        return number

    def unwatch(self, number: int) -> None:
        if self._turns.pop(number, None) is not None:
            self._inotify.unwatch(number)

    def _told(self) -> None:
        changed = self._inotify.changed()
        if OVERFLOW in changed:
            changed = set(self._turns)
        for number in changed:
            turn = self._turns.get(number)
            if turn is not None:
                turn.happened()

    def close(self) -> None:
        """Twice is fine."""
        if self._inotify.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()


class Run:
    """One run of a container, from the start of its command until its exit has been dealt with.

    `ended` is set when the monitor has ended: everything the container wrote is in the journal. `settled` when the
    journal is drained into the log and the exit is recorded. `growth` turns when the journal grows,
    `logged` when the log does.
    """

    def __init__(
        self,
        container_id: ContainerId,
        monitor: Monitor,
        *,
        journal_fd: int,
        start: Mark,
        tty: bool,
        attached: socket.socket | None,
        stdin_once: bool,
        parts: LogParts | None = None,
    ) -> None:
        """`parts`: the log that the journal is carried into."""
        self.container_id = container_id
        self.monitor = monitor
        self.journal_fd = journal_fd
        self.start = start
        self.parts = parts
        self._readers: set[JournalReader] = set()
        self.tty = tty
        self.stdin_once = stdin_once
        self.attached = attached
        self.growth = Turn()
        self.logged = Turn()
        self.ended = False
        self._held_up: bool | None = None
        self.settled = asyncio.Event()
        self._stdin_lock = asyncio.Lock()
        self._listeners: list[asyncio.Queue[tuple[int, bytes] | None]] = []

    def watch_end(self) -> None:
        """Notice the end of the monitor."""
        asyncio.get_running_loop().add_reader(self.monitor.pidfd, self._monitor_ended)

    def _monitor_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self.monitor.pidfd)
        pidfd.reap(self.monitor.pidfd)
        self.ended = True
        self.growth.happened()

    async def wait_ended(self) -> None:
        """Until the container's processes are gone and everything they wrote is in the journal."""
        while not self.ended:
            await self.growth.after(self.growth.count)

    def signal(self, number: int) -> bool:
        """Signal the container's first process. False when it is gone."""
        return pidfd.send(self.monitor.init_pidfd, number)

    def hold_up(self, *, held: bool) -> None:
        """Stop the monitor, so that the container's pipes fill up and it waits; or let it go on. Again is fine."""
        if held != self._held_up and not self.ended:
            self._held_up = pidfd.send(self.monitor.pidfd, signal.SIGSTOP if held else signal.SIGCONT) and held

    async def write_stdin(self, data: bytes) -> None:
        """Hand bytes to the container's standard input; returns when the monitor has taken them.

        Raises:
            Unavailable: the container has no open stdin any more.
        """
        async with self._stdin_lock:
            for at in range(0, len(data), STDIN_PACKET_BYTES):
                await self._send(data[at : at + STDIN_PACKET_BYTES])

    async def _send(self, packet: bytes) -> None:
        while True:
            if self.attached is None or self.ended:
                raise Unavailable("the container's standard input is closed")
            try:
                self.attached.send(packet)
                return
            except BlockingIOError:
                await self._writable(self.attached.fileno())
            except OSError as error:
                raise Unavailable(f"the container's standard input is closed: {error.strerror}") from error

    async def _writable(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        seen = self.growth.count
        loop.add_writer(fd, ready.set)
        try:
            # A command that reads nothing must not hold its client for ever: the end of the run wakes us too.
            async with asyncio.TaskGroup() as group:
                write = group.create_task(ready.wait())
                turn = group.create_task(self.growth.after(seen))
                await asyncio.wait({write, turn}, return_when=asyncio.FIRST_COMPLETED)
                write.cancel()
                turn.cancel()
        finally:
            loop.remove_writer(fd)

    def reader(self, *, from_start: bool) -> JournalReader:
        """One more reader of the journal: from its start (what `start` says), or of what comes from now on."""
        reader = JournalReader(self.journal_fd, self.start)
        if not from_start:
            reader.skip_to_end()
        self._readers.add(reader)
        return reader

    def leave_reader(self, reader: JournalReader) -> None:
        """The reader wants nothing more. Again is fine."""
        self._readers.discard(reader)

    def may_begin_at(self, mark: Mark) -> bool:
        """Whether every reader is past this place; then later ones begin there, and what is before may go."""
        if any(reader.at < mark.journal for reader in self._readers):
            return False
        self.start = mark
        return True

    def listen(self) -> asyncio.Queue[tuple[int, bytes] | None]:
        """For a run without journal: output from now on; None at the end."""
        queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_PACKETS)
        self._listeners.append(queue)
        return queue

    def unlisten(self, queue: asyncio.Queue[tuple[int, bytes] | None]) -> None:
        """Again is fine."""
        if queue in self._listeners:
            self._listeners.remove(queue)
        while not queue.empty():
            queue.get_nowait()

    async def pass_on(self) -> None:
        """For a run without journal: hand the monitor's packets to the listeners until the run has ended."""
        loop = asyncio.get_running_loop()
        connection = self.attached
        while connection is not None:
            try:
                packet = await loop.sock_recv(connection, _PACKET_BYTES)
            except OSError:
                break
            if not packet:
                break
            for queue in tuple(self._listeners):
                await self._hand(queue, (1 if packet[0] == _CONMON_STDOUT else 2, packet[1:]))
        await self.wait_ended()
        for queue in tuple(self._listeners):
            await self._hand(queue, None)

    async def _hand(self, queue: asyncio.Queue[tuple[int, bytes] | None], output: tuple[int, bytes] | None) -> None:
        """A listener that takes nothing holds the command up, as a full pipe does, but not the news of its end."""
        while queue in self._listeners:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await queue.put(output)
            except TimeoutError:
                if self.ended or pidfd.has_ended(self.monitor.init_pidfd):
                    self.unlisten(queue)
                    queue.put_nowait(None)
            else:
                return

    async def close_stdin(self) -> None:
        """End of the container's standard input; output still comes. Again is fine."""
        async with self._stdin_lock:
            if self.attached is None:
                return
            # OSError: the monitor has ended, and the input with it.
            with contextlib.suppress(OSError):
                self.attached.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of every descriptor; the container goes on. Again is fine."""
        if self.monitor.pidfd < 0:
            return
        asyncio.get_running_loop().remove_reader(self.monitor.pidfd)
        self.monitor.close()
        self.monitor = Monitor(self.monitor.pid, -1, self.monitor.init_pid, -1)
        if self.attached is not None:
            self.attached.close()
            self.attached = None
