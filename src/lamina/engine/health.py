"""Probes of running containers: one task per container that has a health check (async)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from dataclasses import dataclass, field
from datetime import timedelta

from lamina.clock import Clock, rfc3339, seconds_since
from lamina.containers.execs import Exec, ExecOrder, Execs, ExecSession
from lamina.containers.health import (
    MOST_OUTPUT_BYTES,
    TIMED_OUT,
    HealthCheck,
    ProbeResult,
    after_probe,
    health_check,
    shown_output,
    status_of,
)
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.record import Container
from lamina.containers.runs import Run
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.engine.exec import ProcessMaker
from lamina.errors import LaminaError
from lamina.workers import Workers

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HealthMonitors:
    """Watches the health of every running container that has a check."""

    store: ContainerStore
    lifecycle: Lifecycle
    execs: Execs
    processes: ProcessMaker
    workers: Workers
    clock: Clock
    tasks: asyncio.TaskGroup
    _watches: set[asyncio.Task[None]] = field(default_factory=set)

    def watch(self, container: Container, run: Run) -> None:
        """A run began, or was taken up again; probes go on until it has ended."""
        check = health_check(container.config)
        if check is not None:
            watch = self.tasks.create_task(self._watch(container, run, check))
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)

    async def aclose(self) -> None:
        """No more probes; the next daemon goes on with them. Again is fine."""
        watches = tuple(self._watches)
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    async def _watch(self, container: Container, run: Run, check: HealthCheck) -> None:
        # The owner of this task is the daemon: one container's trouble must not end the others.
        try:
            while not await _ended_within(run, self._pause_s(container, check)):
                if container.state.status is Status.RUNNING:
                    await self._probe(container, run, check)
        except Exception:  # noqa: BLE001
            _LOG.exception("the health of container %s can no longer be watched", container.id[:12])

    def _running_s(self, container: Container) -> float:
        """Since the start that the record tells of; also right for a run that an earlier daemon began."""
        return seconds_since(container.state.started_at, self.clock.now_ns())

    def _pause_s(self, container: Container, check: HealthCheck) -> float:
        return check.pause_s(status_of(container.state.health), self._running_s(container))

    async def _probe(self, container: Container, run: Run, check: HealthCheck) -> None:
        running_s = self._running_s(container)
        start = rfc3339(self.clock.now_ns())
        exit_code, output = await self._run(container, check)
        health = container.state.health
        # What was frozen or ended meanwhile says nothing about the container's health.
        if run.ended or container.state.status is not Status.RUNNING or not isinstance(health, dict):
            return
        result = ProbeResult(start, rfc3339(self.clock.now_ns()), running_s, exit_code, output)
        following = after_probe(health, result, check)
        container.state.health = following
        if following["Status"] != health["Status"]:
            self.lifecycle.tell(container, f"health_status: {following['Status']}")
            await self.workers.call(self.store.save_lazy, container)

    async def _run(self, container: Container, check: HealthCheck) -> tuple[int, str]:
        """The command's exit code and output; a command that cannot be started has failed."""
        order = ExecOrder(check.args, attach_stdout=True, attach_stderr=True)
        one = self.execs.create(container.id, order)
        command = " ".join(check.args)
        self.lifecycle.tell(container, f"exec_create: {command}", execID=one.id)
        self.lifecycle.tell(container, f"exec_start: {command}", execID=one.id)

        def ended(done: Exec) -> None:
            self.lifecycle.tell(container, "exec_die", execID=done.id, exitCode=str(done.exit_code))

        try:
            session = await self.execs.start(
                one, lambda: self.processes.exec_process(container, order), detach=False, ended=ended
            )
        except LaminaError as error:
            ended(one)
            return one.exit_code or 1, str(error)
        assert session is not None  # not detached
        return await _outcome(one, session, check.timeout_s)


async def _outcome(one: Exec, session: ExecSession, timeout_s: float) -> tuple[int, str]:
    try:
        async with asyncio.timeout(timeout_s):
            output = await _read(session)
            await one.ended.wait()
    except TimeoutError:
        _kill(one)
        words = f"Health check exceeded timeout ({_go_duration(timeout_s)})"
        return TIMED_OUT, words
    finally:
        await session.aclose()
    return one.exit_code if one.exit_code is not None else 1, shown_output(output)


async def _read(session: ExecSession) -> bytes:
    """The beginning of what the probe writes; the rest is read and thrown away."""
    kept = bytearray()
    async for _, data in session.output():
        if len(kept) <= MOST_OUTPUT_BYTES:
            kept += data
    return bytes(kept)


def _kill(one: Exec) -> None:
    """It is our child and not reaped while `running`, so the number is still its own."""
    if one.running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)


async def _ended_within(run: Run, pause_s: float) -> bool:
    try:
        async with asyncio.timeout(pause_s):
            await run.settled.wait()
    except TimeoutError:
        return run.ended
    return True


def _go_duration(seconds: float) -> str:
    """As Go prints a duration: 30s, 1m30s, 1.5s, 250ms."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    whole = timedelta(seconds=int(seconds))
    hours, rest = divmod(int(whole.total_seconds()), 3600)
    minutes = rest // 60
    found = f"{hours}h" if hours else ""
    found += f"{minutes}m" if minutes or hours else ""
    return found + f"{rest % 60 + seconds % 1:g}s"
