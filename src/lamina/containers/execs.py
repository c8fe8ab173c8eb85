"""More processes in running containers: `exec` (async).

An exec has no monitor: its process is started by the OCI runtime with our own pipes or terminal and becomes our child,
so that its end and exit code are ours to see. Execs are not kept on disk and do not outlive the daemon's view of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from lamina.containers.attach import AttachSession, Output
from lamina.containers.runtime import ExecLaunch, ExecLaunched, Runtime
from lamina.errors import CommandNotFound, Conflict, LaminaError, NoSuchExec, Unavailable
from lamina.ids import ContainerId, random_id
from lamina.jsonvalue import JsonObject
from lamina.kernel import pidfd
from lamina.workers import Workers

_READ_BYTES = 64 << 10
_LATE_WRITERS_S = 2.0
"""How long output is waited for that children of an ended exec may still write. Source: moby daemon/monitor.go."""

_KEPT_S = 300.0
"""Source: moby daemon/exec.go, execCommandGC."""


@dataclass(frozen=True, slots=True)
class ExecOrder:
    """What was asked for at create. `detach_keys` is kept for the client."""

    args: tuple[str, ...]
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    privileged: bool = False
    detach_keys: str = ""


@dataclass(eq=False, slots=True)
class Exec:
    """One exec, from its create until its container is removed. `exit_code` None: not ended."""

    id: str
    container_id: ContainerId
    order: ExecOrder
    started: bool = False
    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    terminal: int = -1
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Execs:
    """Every exec of this daemon."""

    def __init__(self, runtime: Runtime, workers: Workers, *, kept_s: float = _KEPT_S) -> None:
        """`kept_s`: how long an exec that has ended can still be asked about."""
        self._kept_s = kept_s
        self._runtime = runtime
        self._workers = workers
        self._all: dict[str, Exec] = {}

    def create(self, container_id: ContainerId, order: ExecOrder) -> Exec:
        found = Exec(random_id(), container_id, order)
        self._all[found.id] = found
        return found

    def get(self, exec_id: str) -> Exec:
        """Raises NoSuchExec with Docker's words."""
        found = self._all.get(exec_id)
        if found is None:
            raise NoSuchExec(f"No such exec instance: {exec_id[:80]}")
        return found

    def ids_of(self, container_id: ContainerId) -> list[str]:
        """The execs of a container that have not ended, for its inspect."""
        return [one.id for one in self._all.values() if one.container_id == container_id and one.exit_code is None]

    def forget_container(self, container_id: ContainerId) -> None:
        """The container is gone: so are its execs. Again is fine."""
        for one in [one for one in self._all.values() if one.container_id == container_id]:
            del self._all[one.id]

    async def start(
        self, one: Exec, process: Callable[[], JsonObject], *, detach: bool, ended: Callable[[Exec], None]
    ) -> ExecSession | None:
        """Start the process. Gives its streams; None when detached.

        `process` is called in a worker thread and makes the runtime's process description. `ended` is told of the end.

        Raises:
            Conflict: it was started before.
            CommandNotFound, CommandNotExecutable, ProcessFailed: with Docker's words; the exit code is kept.
        """
        if one.started:
            raise Conflict(f"Error: Exec command {one.id} has already run")
        one.started = True
        pipes = _Pipes(one.order, detach=detach)
        try:
            launched = await self._workers.call(self._launch, one, process, pipes)
        except LaminaError as error:
            pipes.close_all()
            one.exit_code = 127 if isinstance(error, CommandNotFound) else 126
            one.ended.set()
            self._forget_later(one)
            raise
        except BaseException:
            pipes.close_all()
            raise
        pipes.close_theirs()
        one.running = True
        one.pid = launched.pid
        session = ExecSession(one, launched, pipes)

        def process_ended() -> None:
            session.process_ended()
            self._forget_later(one)
            ended(one)

        _watch(one, launched, process_ended)
        if detach:
            await session.aclose()
            return None
        return session

    def _forget_later(self, one: Exec) -> None:
        """A container may live for years, with an exec each second."""
        asyncio.get_running_loop().call_later(self._kept_s, self._all.pop, one.id, None)

    def _launch(self, one: Exec, process: Callable[[], JsonObject], pipes: _Pipes) -> ExecLaunched:
        return self._runtime.exec(
            ExecLaunch(
                one.container_id,
                one.id,
                process(),
                stdin=pipes.their_stdin,
                stdout=pipes.their_stdout,
                stderr=pipes.their_stderr,
                terminal=one.order.tty,
            )
        )

    def resize(self, one: Exec, rows: int, columns: int) -> None:
        """Set the size of the exec's terminal.

        Raises:
            Conflict: it does not run, or has no terminal.
        """
        if one.terminal < 0:
            raise Conflict(f"cannot resize exec {one.id[:12]}: it is not running, or has no terminal")
        size = struct.pack("HHHH", min(rows, 0xFFFF), min(columns, 0xFFFF), 0, 0)
        fcntl.ioctl(one.terminal, termios.TIOCSWINSZ, size)


def _watch(one: Exec, launched: ExecLaunched, told: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def process_ended() -> None:
        loop.remove_reader(launched.pidfd)
        status = pidfd.reap(launched.pidfd)
        pidfd.close(launched.pidfd)
        one.running = False
        one.exit_code = 137 if status is None else status
        one.ended.set()
        told()

    loop.add_reader(launched.pidfd, process_ended)


class _Pipes:
    """Our ends and the process's ends; -1 for none."""

    def __init__(self, order: ExecOrder, *, detach: bool) -> None:
        self.stdin = self.stdout = self.stderr = -1
        self.their_stdin = self.their_stdout = self.their_stderr = -1
        if order.tty or detach:
            return
        if order.attach_stdin:
            self.their_stdin, self.stdin = os.pipe()
        if order.attach_stdout:
            self.stdout, self.their_stdout = os.pipe()
        if order.attach_stderr:
            self.stderr, self.their_stderr = os.pipe()

    def close_theirs(self) -> None:
        for fd in (self.their_stdin, self.their_stdout, self.their_stderr):
            if fd >= 0:
                os.close(fd)
        self.their_stdin = self.their_stdout = self.their_stderr = -1

    def close_all(self) -> None:
        self.close_theirs()
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdin = self.stdout = self.stderr = -1


class ExecSession(AttachSession):
    """The one client of an exec."""

    def __init__(self, one: Exec, launched: ExecLaunched, pipes: _Pipes) -> None:
        self.tty = one.order.tty
        self._exec = one
        self._sources: dict[int, int] = {}
        self._stdin = -1
        self._draining = False
        self._news = asyncio.Event()
        if launched.terminal >= 0:
            one.terminal = launched.terminal
            self._sources[launched.terminal] = 1
            self._stdin = os.dup(launched.terminal)
        else:
            self._stdin = pipes.stdin
            self._sources.update({fd: stream for fd, stream in ((pipes.stdout, 1), (pipes.stderr, 2)) if fd >= 0})
        for fd in (*self._sources, self._stdin):
            if fd >= 0:
                os.set_blocking(fd, False)

    def process_ended(self) -> None:
        """Called once, when the process is gone: what it wrote is in the pipes."""
        self._news.set()

    async def output(self) -> AsyncIterator[Output]:
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        while self._sources and not self._draining:
            quiet = True
            for fd, stream in tuple(self._sources.items()):
                data = self._read(fd)
                if data:
                    quiet = False
                    yield stream, data
            if not quiet or not self._sources:
                continue
            if self._exec.ended.is_set():
                deadline = deadline or loop.time() + _LATE_WRITERS_S
                if loop.time() >= deadline:
                    break
            await self._wait(deadline)
        if self._draining:
            return
        await self._exec.ended.wait()
        self._close_sources()

    async def _wait(self, deadline: float | None) -> None:
        """Until a source has news, the process has ended, or `deadline`."""
        loop = asyncio.get_running_loop()
        watched = tuple(self._sources)
        for fd in watched:
            loop.add_reader(fd, self._news.set)
        try:
            async with asyncio.timeout_at(deadline):
                await self._news.wait()
        except TimeoutError:
            return
        finally:
            self._news.clear()
            for fd in watched:
                loop.remove_reader(fd)

    def _read(self, fd: int) -> bytes:
        """What is there now; the end of a source takes it off the list."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says when its other side is closed
                raise
            data = b""
        if not data:
            self._close_source(fd)
        return data

    def _close_source(self, fd: int) -> None:
        if self._sources.pop(fd, None) is not None:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
            if fd == self._exec.terminal:
                self._exec.terminal = -1

    def _close_sources(self) -> None:
        for fd in tuple(self._sources):
            self._close_source(fd)
        self._close_stdin()

    async def write_stdin(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._stdin < 0 or self._exec.ended.is_set():
                raise Unavailable("the exec's standard input is closed")
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await self._writable(self._stdin)
            except OSError as error:
                self._close_stdin()
                raise Unavailable(f"the exec's standard input is closed: {error.strerror}") from error

    async def _writable(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(fd, ready.set)
        try:
            async with asyncio.TaskGroup() as group:
                both = {group.create_task(ready.wait()), group.create_task(self._exec.ended.wait())}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for task in both:
                    task.cancel()
        finally:
            loop.remove_writer(fd)

    async def close_stdin(self) -> None:
        if not self.tty:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            with contextlib.suppress(ValueError):
                asyncio.get_running_loop().remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    async def aclose(self) -> None:
        """The process goes on, so somebody has to take what it writes: it is read and thrown away."""
        if self._draining:
            return
        self._draining = True
        self._close_stdin()
        self._news.set()
        if self._exec.ended.is_set():
            self._close_sources()
            return
        for fd in tuple(self._sources):
            asyncio.get_running_loop().add_reader(fd, self._read, fd)
