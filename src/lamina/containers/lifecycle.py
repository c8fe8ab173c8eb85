"""Starting, signalling, freezing, ending and removing containers (async).

One `Lifecycle` knows every run. What a run needs around its process (writable layer, network, volumes) comes from
`Resources`, so this file knows nothing of them. A request that has begun to change something is carried through even
when its client goes away.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from lamina.clock import Clock, rfc3339
from lamina.containers import launching
from lamina.containers.attach import ContainerAttach, Wanted
from lamina.containers.launching import KILL_PATIENCE_S, SIGKILL, Launcher, Resources
from lamina.containers.logfile import JournalPump, Mark
from lamina.containers.news import attributes_of, networks_of
from lamina.containers.record import Container
from lamina.containers.runs import JournalWatch, Run
from lamina.containers.runtime import Ended, Launched, Runtime
from lamina.containers.state import Event, Status, advance
from lamina.containers.store import ContainerStore
from lamina.errors import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    LaminaError,
    NotModified,
    ProcessFailed,
    ProgramFailed,
    Unavailable,
)
from lamina.ids import ContainerId
from lamina.jsonvalue import boolean, text
from lamina.kernel import pidfd
from lamina.workers import Workers

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_STRANGERS_S = 30.0


class EventSink(Protocol):
    """Where events go."""

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None:
        """Tell everybody who listens."""


@dataclass(frozen=True, slots=True)
class WaitResult:
    """What a wait answers; `error` is empty unless the start failed."""

    status_code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Live:
    run: Run
    pump: JournalPump | None


class Lifecycle:
    """Every run of every container of this daemon."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        runtime: Runtime,
        resources: Resources,
        events: EventSink,
        workers: Workers,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        strangers_s: float = _STRANGERS_S,
    ) -> None:
        """Must be made in the event loop; `tasks` lives as long as the daemon. Orphans are looked for now and then."""
        self._strangers_s = strangers_s
        self._store = store
        self._runtime = runtime
        self._resources = resources
        self._launcher = Launcher(store, runtime, resources, clock)
        self._events = events
        self._workers = workers
        self._clock = clock
        self._tasks = tasks
        self._watch = JournalWatch()
        self._live: dict[ContainerId, _Live] = {}
        self._followers: set[asyncio.Task[None]] = {tasks.create_task(self._collect_strangers())}
        self._waiting: dict[ContainerId, list[ContainerAttach]] = {}
        self._kept: set[ContainerId] = set()
        self._exits: dict[ContainerId, list[asyncio.Future[WaitResult]]] = {}
        self._removals: dict[ContainerId, list[asyncio.Future[WaitResult]]] = {}
        self._forgetful: list[Callable[[ContainerId], None]] = []
        self._closing = False

    def when_removed(self, forget: Callable[[ContainerId], None]) -> None:
        """Have others forget a container that is gone, however it went."""
        self._forgetful.append(forget)

    # -- looking -----------------------------------------------------------------------------------------------

    def run_of(self, container: Container) -> Run | None:
        """The present run, or None."""
        live = self._live.get(container.id)
        return live.run if live else None

    def running(self, container: Container) -> Run:
        """The present run. Raises Conflict with Docker's words when there is none."""
        run = self.run_of(container)
        if run is None:
            raise Conflict(f"container {container.id} is not running")
        return run

    # -- start -------------------------------------------------------------------------------------------------

    async def start(self, container: Container) -> None:
        """Start a container that does not run.

        Raises:
            NotModified: it runs.
            Conflict: it is paused, or being removed.
            CommandNotFound, CommandNotExecutable, ProcessFailed: with Docker's words; the state says so too.
        """
        await self.whole(self._start(container))

    async def _start(self, container: Container) -> None:
        async with self._workers.holding(container.id):
            following = advance(container.state.status, Event.START, container.id)
            try:
                launched, pump = await self._workers.call(self._launcher.launch, container)
            except (LaminaError, OSError) as error:
                failure = error if isinstance(error, LaminaError) else ProcessFailed(f"container start failed: {error}")
                await self._start_failed(container, failure)
            else:
                self._started(container, following, launched, pump)
                await self._workers.call(self._store.save_lazy, container)
                return
        await self._auto_remove(container)
        raise failure

    def _started(self, container: Container, status: Status, launched: Launched, pump: JournalPump | None) -> None:
        state = container.state
        state.status = status
        state.pid = launched.monitor.init_pid
        state.exit_code = 0
        state.error = ""
        state.oom_killed = False
        state.started_at = rfc3339(self._clock.now_ns())
        container.has_been_started_before = True
        container.has_been_manually_stopped = False
        run = self.adopt(container, launched, pump)
        for session in self._waiting.pop(container.id, []):
            session.begin(run)
        self._tell_networks(container, "connect")
        self.tell(container, "start")

    def adopt(self, container: Container, launched: Launched, pump: JournalPump | None) -> Run:
        """Follow a running container from now on, whoever started it."""
        self._resources.adopt(container)
        run = Run(
            container.id,
            launched.monitor,
            journal_fd=pump.journal_fd if pump else -1,
            start=pump.start if pump else Mark(0, 0),
            tty=boolean(container.config, "Tty"),
            attached=launched.attached,
            stdin_once=boolean(container.config, "StdinOnce"),
        )
        if self._closing:
            return run  # the next daemon follows it
        self._live[container.id] = _Live(run, pump)
        run.watch_end()
        follower = self._tasks.create_task(self._follow(container, run, pump))
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)
        return run

    async def _start_failed(self, container: Container, error: LaminaError) -> None:
        state = container.state
        state.error = error.message
        state.exit_code = _failure_code(error)
        for session in self._waiting.pop(container.id, []):
            session.cancel()
        # Who waits for the next exit goes on waiting, as with Docker: there was none, and start has said why.
        await self._workers.call(self._store.save_lazy, container)

    # -- the end of a run --------------------------------------------------------------------------------------

    async def _follow(self, container: Container, run: Run, pump: JournalPump | None) -> None:
        """One task per running container: pump its journal, deal with its exit."""
        # The owner of this task is the daemon: one container's trouble must not end the others.
        try:
            await self._carry_output(container, run, pump)
            await self._settle(container, run, pump)
        except Exception:  # noqa: BLE001
            _LOG.exception("container %s can no longer be followed", container.id[:12])

    async def _carry_output(self, container: Container, run: Run, pump: JournalPump | None) -> None:
        """Until the end of the run. Trouble with its output must not hide the end from who waits for it."""
        try:
            if pump is None:
                await run.pass_on()
            else:
                await self._drain(run, pump)
        except Exception:  # noqa: BLE001
            _LOG.exception("the output of container %s can no longer be carried", container.id[:12])
            await run.wait_ended()

    async def _drain(self, run: Run, pump: JournalPump) -> None:
        watch = self._watch.watch(pump.journal, run.growth)
        try:
            while True:
                seen, ended = run.growth.count, run.ended
                if await self._workers.call(launching.advance, pump):
                    run.logged.happened()
                    mark = pump.mark()
                    if mark is not None and run.may_begin_at(mark):
                        await self._workers.call(pump.free_before, mark)
                    continue
                if ended:
                    return
                await run.growth.after(seen)
        finally:
            self._watch.unwatch(watch)

    async def _settle(self, container: Container, run: Run, pump: JournalPump | None) -> None:
        async with self._workers.holding(container.id):
            ended = await self._workers.call(self._launcher.collect, container, run.monitor, pump)
            self._exited(container, run, ended)
            run.close()
            if pump is not None:
                pump.close()
            if not self._removes_itself(container):
                await self._workers.call(self._launcher.clean_up, container)
        await self._auto_remove(container)

    def _exited(self, container: Container, run: Run | None, ended: Ended) -> None:
        """Record the end and tell everybody. Nothing waits for the disk here: a restart finds the same again."""
        state = container.state
        state.status = Status.EXITED
        state.pid = 0
        state.exit_code = ended.exit_code
        state.oom_killed = ended.oom_killed
        state.finished_at = rfc3339(ended.at_ns)
        self._live.pop(container.id, None)
        if ended.oom_killed:
            self.tell(container, "oom")
        duration = _seconds_between(state.started_at, ended.at_ns)
        self.tell(container, "die", exitCode=str(ended.exit_code), execDuration=str(duration))
        self._tell_networks(container, "disconnect")
        if run is not None:
            run.settled.set()
            run.logged.happened()
        self._answer(self._exits, container)

    async def settle_ended(self, container: Container) -> None:
        """A container that ended while no daemon was there: finish its log, record its exit, clean up."""
        async with self._workers.holding(container.id):
            self._resources.adopt(container)
            await self._workers.call(self._launcher.finish_journals, container)
            ended = await self._workers.call(self._runtime.ended, container.id)
            # Nobody recorded it: the host went down with it. 255 is what Docker says then.
            self._exited(container, None, ended or Ended(255, self._clock.now_ns()))
            if not self._removes_itself(container):
                await self._workers.call(self._launcher.clean_up, container)
        await self._auto_remove(container)

    # -- signals -----------------------------------------------------------------------------------------------

    async def kill(self, container: Container, number: int, *, stop_signal: int) -> None:
        """Signal the container's first process; SIGKILL waits for the end. Raises Conflict when it does not run."""
        run = self.run_of(container)
        if run is None:
            raise Conflict(f"cannot kill container: {container.name}: container {container.id} is not running")
        if number in (SIGKILL, stop_signal):
            container.has_been_manually_stopped = True
        await self.whole(self._signal(container, run, number))
        if number == SIGKILL:
            await self._await_settled(container, run, KILL_PATIENCE_S)

    async def _signal(self, container: Container, run: Run, number: int) -> None:
        run.signal(number)
        self.tell(container, "kill", signal=str(number))
        if container.state.status is Status.PAUSED:
            # A frozen process cannot act on a signal. Conflict: it has just ended.
            with contextlib.suppress(Conflict):
                await self.unpause(container)

    async def stop(self, container: Container, number: int, timeout_s: float | None) -> None:
        """Ask the container to end, then kill it after `timeout_s` (None: never).

        Raises:
            NotModified: it does not run.
        """
        run = self.run_of(container)
        if run is None:
            raise NotModified(f"container {container.id} is already stopped")
        container.has_been_manually_stopped = True
        await self.whole(self._stop(container, run, number, timeout_s))

    async def _stop(self, container: Container, run: Run, number: int, timeout_s: float | None) -> None:
        await self._signal(container, run, number)
        try:
            async with asyncio.timeout(timeout_s):
                await run.settled.wait()
        except TimeoutError:
            await self._signal(container, run, SIGKILL)
            await self._await_settled(container, run, KILL_PATIENCE_S)
        if self._closing:
            raise Unavailable(f"container {container.id} was told to stop, and so was the daemon")
        self.tell(container, "stop")

    @staticmethod
    async def _await_settled(container: Container, run: Run, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                await run.settled.wait()
        except TimeoutError as error:
            raise Conflict(f"container {container.id} did not end within {patience_s:g} s of SIGKILL") from error

    # -- freezing ----------------------------------------------------------------------------------------------

    async def pause(self, container: Container) -> None:
        """Freeze every process. Raises Conflict when it does not run or is frozen."""
        await self.whole(self._change_freezing(container, Event.PAUSE, self._runtime.pause))

    async def unpause(self, container: Container) -> None:
        """Let the processes run again. Raises Conflict when it is not frozen."""
        await self.whole(self._change_freezing(container, Event.UNPAUSE, self._runtime.resume))

    async def _change_freezing(self, container: Container, event: Event, change: Callable[[ContainerId], None]) -> None:
        async with self._workers.holding(container.id):
            following = advance(container.state.status, event, container.id)
            try:
                await self._workers.call(change, container.id)
            except ProgramFailed as error:
                if not pidfd.has_ended(self.running(container).monitor.init_pidfd):
                    raise
                raise Conflict(f"Container {container.id} is not running") from error
            container.state.status = following
            self.tell(container, event.value)
            await self._workers.call(self._store.save_lazy, container)

    # -- waiting and attaching ---------------------------------------------------------------------------------

    def wait(self, container: Container, condition: str) -> asyncio.Future[WaitResult]:
        """A future that is done when the condition holds: `not-running`, `next-exit` or `removed`.

        The caller waits for it, or cancels it when nobody asks any more.
        """
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition == "not-running" and container.id not in self._live:
            future.set_result(WaitResult(container.state.exit_code, container.state.error))
            return future
        pending = self._removals if condition == "removed" else self._exits
        waiting = pending.setdefault(container.id, [])
        waiting.append(future)
        # Who gives up waiting is forgotten at once.
        future.add_done_callback(lambda done: waiting.remove(done) if done in waiting else None)
        return future

    def _answer(self, pending: dict[ContainerId, list[asyncio.Future[WaitResult]]], container: Container) -> None:
        for future in pending.pop(container.id, []):
            if not future.done():
                future.set_result(WaitResult(container.state.exit_code))

    def attach(self, container: Container, wanted: Wanted) -> ContainerAttach:
        """A client of the present run, or of the next one when the container does not run."""
        tty = boolean(container.config, "Tty")
        session = ContainerAttach(self._workers, wanted, tty=tty, leave=lambda gone: self._left(container.id, gone))
        live = self._live.get(container.id)
        if live is not None:
            session.begin(live.run)
        else:
            self._waiting.setdefault(container.id, []).append(session)
        return session

    def _left(self, container_id: ContainerId, session: ContainerAttach) -> None:
        sessions = self._waiting.get(container_id, [])
        if session in sessions:
            sessions.remove(session)
        if not sessions:
            self._waiting.pop(container_id, None)

    async def resize(self, container: Container, rows: int, columns: int) -> None:
        """Set the size of the container's terminal."""
        self.running(container)
        await self._workers.call(self._runtime.resize, container.id, rows, columns)
        self.tell(container, "resize", height=str(rows), width=str(columns))

    # -- removal -----------------------------------------------------------------------------------------------

    async def remove(self, container: Container, *, volumes: bool) -> None:
        """Remove a container that does not run. Raises Conflict when it does."""
        await self.whole(self._remove(container, volumes=volumes))

    async def _remove(self, container: Container, *, volumes: bool) -> None:
        async with self._workers.holding(container.id):
            if container.state.status is Status.REMOVING:
                raise Conflict(f"removal of container {container.id} is already in progress")
            container.state.status = advance(container.state.status, Event.REMOVE, container.id)
            container.state.removal_in_progress = True
            for session in self._waiting.pop(container.id, []):
                session.cancel()
            try:
                await self._erase(container, volumes=volumes)
            except (LaminaError, OSError) as error:
                container.state.status = Status.DEAD
                container.state.removal_in_progress = False
                container.state.dead = True
                container.state.error = f"removal failed: {error}"
                await self._workers.call(self._store.save_lazy, container)
                raise
            self.tell(container, "destroy")
            for forget in self._forgetful:
                forget(container.id)
            self._answer(self._exits, container)
            self._answer(self._removals, container)

    def _removes_itself(self, container: Container) -> bool:
        return boolean(container.host_config, "AutoRemove") and container.id not in self._kept

    async def _auto_remove(self, container: Container) -> None:
        if not self._removes_itself(container):
            return
        # Conflict: somebody asked for the removal at the same moment, and gets it.
        with contextlib.suppress(Conflict):
            await self._remove(container, volumes=True)

    @contextlib.contextmanager
    def keeping(self, container: Container) -> Iterator[None]:
        """Inside, the container is not removed when it ends: it is about to be started again."""
        self._kept.add(container.id)
        try:
            yield
        finally:
            self._kept.discard(container.id)

    async def _erase(self, container: Container, *, volumes: bool) -> None:
        """The record says "being removed" first, so a crash is finished later and never shows half."""
        delete = self._workers.call(self._runtime.delete, container.id)
        if text(container.host_config, "PidMode"):
            # Without a process namespace of its own, processes may be left that use its files: they go first.
            await delete
            await self._workers.call(self._launcher.erase, container, volumes=volumes)
            return
        erase = self._workers.call(self._launcher.erase, container, volumes=volumes)
        deleted, erased = await asyncio.gather(delete, erase, return_exceptions=True)
        if isinstance(erased, BaseException):
            raise erased
        if isinstance(deleted, BaseException):
            _LOG.warning("container %s leaves runtime state to the next start: %s", container.id[:12], deleted)

    # -- everything else ---------------------------------------------------------------------------------------

    def tell(self, container: Container, action: str, **more: str) -> None:
        """Publish a container event with Docker's attributes."""
        self._events.publish("container", action, container.id, attributes_of(container, more))

    def _tell_networks(self, container: Container, action: str) -> None:
        for network_id, attributes in networks_of(container):
            self._events.publish("network", action, network_id, attributes)

    async def whole(self, work: Coroutine[None, None, T]) -> T:
        """Carry work through to its end even when the one who asked is cancelled."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda future: future.cancelled() or future.exception())

        async def carry() -> None:
            try:
                result = await work
            except Exception as error:  # noqa: BLE001 - handed to the one who asked
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self._tasks.create_task(carry())
        return await asyncio.shield(done)

    async def _collect_strangers(self) -> None:
        """As a subreaper we inherit orphans: children of execs in the host's process namespace, failed monitors.

        Whoever knows a child collects it at once, so one that stays a zombie from one look to the next is nobody's.
        """
        before: frozenset[int] = frozenset()
        while True:
            await asyncio.sleep(self._strangers_s)
            try:
                now = await self._workers.call(pidfd.zombie_children)
            except OSError as error:  # out of descriptors: there is a next look
                _LOG.warning("orphaned processes cannot be looked for: %s", error)
                continue
            for pid in now & before:
                pidfd.collect_child(pid)
            before = now

    async def aclose(self) -> None:
        """Stop following; the containers go on, and nobody waits for an end any more. Again is fine."""
        self._closing = True
        followers = tuple(self._followers)
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        for live in self._live.values():
            live.run.settled.set()
            live.run.close()
            if live.pump is not None:
                live.pump.close()
        self._live.clear()
        self._watch.close()


def _failure_code(error: LaminaError) -> int:
    """Source: moby daemon/start.go: 126 and 127 as a shell gives them, 128 for anything else."""
    if isinstance(error, CommandNotFound):
        return 127
    return 126 if isinstance(error, CommandNotExecutable) else 128


def _seconds_between(started_at: str, ended_ns: int) -> int:
    """Whole seconds of a run, as the `execDuration` of `die`."""
    try:
        started = calendar.timegm(time.strptime(started_at[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:  # a record that somebody edited
        return 0
    return max(0, ended_ns // 1_000_000_000 - started)
