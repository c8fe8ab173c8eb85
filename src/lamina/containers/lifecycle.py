"""Starting, signalling, freezing, ending and removing containers (async).

One `Lifecycle` knows every run. What a run needs around its process (writable layer, network, volumes) comes from
`Resources`, so this file knows nothing of them. A request that has begun to change something is carried through even
when its client goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from lamina.clock import Clock, rfc3339, seconds_since
from lamina.containers.attach import ContainerAttach, Wanted
from lamina.containers.health import after_end, first_health
from lamina.containers.launching import KILL_PATIENCE_S, SIGKILL, Launcher, Resources
from lamina.containers.logfile import START, JournalPump
from lamina.containers.news import attributes_of, networks_of
from lamina.containers.orphans import collect_orphans
from lamina.containers.output import Output
from lamina.containers.record import Container
from lamina.containers.restarts import Restarts
from lamina.containers.runs import Run
from lamina.containers.runtime import Ended, Launched, Runtime
from lamina.containers.state import Event, Status, advance
from lamina.containers.store import ContainerStore
from lamina.containers.waiters import Waiters, WaitResult
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
        self._store = store
        self._runtime = runtime
        self._resources = resources
        self._launcher = Launcher(store, runtime, resources, clock)
        self._events = events
        self._workers = workers
        self._clock = clock
        self._tasks = tasks
        self._output = Output(workers)
        self._live: dict[ContainerId, _Live] = {}
        self._followers: set[asyncio.Task[None]] = {tasks.create_task(collect_orphans(workers, strangers_s))}
        self._restarts = Restarts(tasks, self._restart)
        self._waiters = Waiters()
        self._kept: set[ContainerId] = set()
        self._forgetful: list[Callable[[ContainerId], None]] = []
        self._onlookers: list[Callable[[Container, Run], None]] = []
        self._closing = False

    def when_removed(self, forget: Callable[[ContainerId], None]) -> None:
        """Have others forget a container that is gone, however it went."""
        self._forgetful.append(forget)

    def when_running(self, look: Callable[[Container, Run], None]) -> None:
        """Have others told of each run: one that begins, and one of an earlier daemon that is taken up."""
        self._onlookers.append(look)

    # -- looking -----------------------------------------------------------------------------------------------

    def run_of(self, container: Container) -> Run | None:
        """The present run, or None."""
        live = self._live.get(container.id)
        return live.run if live else None

    def running(self, container: Container) -> Run:
        """The present run. Raises Conflict with Docker's words when there is none."""
        run = self.run_of(container)
        if run is None and _is_between_runs(container):
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
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
        await self.whole(self._start_asked(container))

    async def _start_asked(self, container: Container) -> None:
        async with self._workers.holding(container.id):
            if _is_between_runs(container):
                raise NotModified(f"container {container.id} is already started")
            self._restarts.forget(container.id)
            container.restart_count = 0
            failure = await self._start(container)
        await self._after_failure(container, failure)

    async def _restart(self, container: Container) -> None:
        """The pause after a run is over."""
        try:
            async with self._workers.holding(container.id):
                if self._closing or not _is_between_runs(container):
                    return  # somebody stopped it meanwhile
                failure = await self._start(container)
            await self._after_failure(container, failure)
        except (LaminaError, OSError) as error:
            _LOG.warning("container %s is not started again: %s", container.id[:12], error)

    async def _after_failure(self, container: Container, failure: LaminaError | None) -> None:
        if failure is not None:
            await self._auto_remove(container)
            raise failure

    async def _start(self, container: Container) -> LaminaError | None:
        """With the container held; the failure is in its state already."""
        following = advance(container.state.status, Event.START, container.id)
        try:
            launched, pump = await self._workers.call(self._launcher.launch, container)
        except (LaminaError, OSError) as error:
            failure = error if isinstance(error, LaminaError) else ProcessFailed(f"container start failed: {error}")
            await self._start_failed(container, failure)
            return failure
        self._started(container, following, launched, pump)
        await self._workers.call(self._store.save_lazy, container)
        return None

    def _started(self, container: Container, status: Status, launched: Launched, pump: JournalPump | None) -> None:
        state = container.state
        state.status = status
        state.pid = launched.monitor.init_pid
        state.exit_code = 0
        state.error = ""
        state.oom_killed = False
        state.health = first_health(container.config)
        state.started_at = rfc3339(self._clock.now_ns())
        container.has_been_started_before = True
        container.has_been_manually_stopped = False
        run = self.adopt(container, launched, pump)
        self._waiters.begun(container.id, run)
        self._tell_networks(container, "connect")
        self.tell(container, "start")

    def adopt(self, container: Container, launched: Launched, pump: JournalPump | None) -> Run:
        """Follow a running container from now on, whoever started it."""
        self._resources.adopt(container)
        run = Run(
            container.id,
            launched.monitor,
            journal_fd=pump.journal_fd if pump else -1,
            start=pump.start if pump else START,
            tty=boolean(container.config, "Tty"),
            attached=launched.attached,
            stdin_once=boolean(container.config, "StdinOnce"),
            parts=pump.parts if pump else None,
        )
        if self._closing:
            return run  # the next daemon follows it
        self._live[container.id] = _Live(run, pump)
        run.watch_end()
        follower = self._tasks.create_task(self._follow(container, run, pump))
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)
        for look in self._onlookers:
            look(container, run)
        return run

    async def _start_failed(self, container: Container, error: LaminaError) -> None:
        state = container.state
        state.status = advance(state.status, Event.START_FAILED, container.id)
        state.error = error.message
        state.exit_code = _failure_code(error)
        self._waiters.none_begins(container.id)
        # Who waits for the next exit goes on waiting, as with Docker: there was none, and start has said why.
        await self._workers.call(self._store.save_lazy, container)

    # -- the end of a run --------------------------------------------------------------------------------------

    async def _follow(self, container: Container, run: Run, pump: JournalPump | None) -> None:
        """One task per running container: pump its journal, deal with its exit."""
        # The owner of this task is the daemon: one container's trouble must not end the others.
        try:
            await self._output.carry(container, run, pump)
            await self._settle(container, run, pump)
        except Exception:  # noqa: BLE001
            _LOG.exception("container %s can no longer be followed", container.id[:12])

    async def _settle(self, container: Container, run: Run, pump: JournalPump | None) -> None:
        async with self._workers.holding(container.id):
            ended = await self._workers.call(self._launcher.collect, container, run.monitor, pump)
            ran_s = self._exited(container, run, ended)
            run.close()
            if pump is not None:
                pump.close()
            await self._ended(container, ran_s)
        await self._auto_remove(container)

    async def _ended(self, container: Container, ran_s: float) -> None:
        """With the container held: its run's traces go, and the next run is on its way if there is to be one."""
        if not self._removes_itself(container):
            await self._workers.call(self._launcher.clean_up, container)
        if _is_between_runs(container) and not self._closing:
            self._restarts.schedule(container, ran_s)

    def _exited(self, container: Container, run: Run | None, ended: Ended) -> float:
        """Record the end and tell everybody; how many seconds the run took.

        Nothing waits for the disk here: a restart of the daemon finds the same again.
        """
        state = container.state
        again = container.id not in self._kept and self._restarts.wanted(container, ended.exit_code)
        state.status = Status.RESTARTING if again else Status.EXITED
        container.restart_count += again
        state.pid = 0
        state.exit_code = ended.exit_code
        state.oom_killed = ended.oom_killed
        state.health = after_end(state.health)
        state.finished_at = rfc3339(ended.at_ns)
        self._live.pop(container.id, None)
        if ended.oom_killed:
            self.tell(container, "oom")
        duration = seconds_since(state.started_at, ended.at_ns)
        self.tell(container, "die", exitCode=str(ended.exit_code), execDuration=str(int(duration)))
        self._tell_networks(container, "disconnect")
        if run is not None:
            run.settled.set()
            run.logged.happened()
        self._waiters.exited(container)
        return duration

    async def settle_ended(self, container: Container) -> None:
        """A container that ended while no daemon was there: finish its log, record its exit, clean up."""
        async with self._workers.holding(container.id):
            self._resources.adopt(container)
            await self._workers.call(self._launcher.finish_journals, container)
            ended = await self._workers.call(self._runtime.ended, container.id)
            # Nobody recorded it: the host went down with it. 255 is what Docker says then.
            ran_s = self._exited(container, None, ended or Ended(255, self._clock.now_ns()))
            await self._ended(container, ran_s)
        await self._auto_remove(container)

    def start_soon(self, container: Container) -> None:
        """The daemon starts, and the container is to run: an earlier daemon was waiting for it, or its policy says so.

        What fails is in its state, and logged.
        """
        container.state.status = Status.RESTARTING
        self._restarts.schedule(container, 0.0)

    # -- signals -----------------------------------------------------------------------------------------------

    async def kill(self, container: Container, number: int, *, stop_signal: int) -> None:
        """Signal the container's first process; SIGKILL waits for the end. Raises Conflict when it does not run."""
        run = self.run_of(container)
        if run is None and number in (SIGKILL, stop_signal):
            run, gave_up = await self._run_or_give_up(container)
            if gave_up:
                return
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
        run, gave_up = await self._run_or_give_up(container)
        if gave_up:
            self.tell(container, "stop")
            return
        if run is None:
            raise NotModified(f"container {container.id} is already stopped")
        container.has_been_manually_stopped = True
        await self.whole(self._stop(container, run, number, timeout_s))

    async def _run_or_give_up(self, container: Container) -> tuple[Run | None, bool]:
        """The present run, or whether the next one was called off. A container may change between the two meanwhile."""
        while (run := self.run_of(container)) is None and _is_between_runs(container):
            if await self.whole(self._give_up_restart(container)):
                return None, True
        return run, False

    async def _give_up_restart(self, container: Container) -> bool:
        """Between two runs, stopping means that there is no next one; False when it is not between two runs."""
        if not _is_between_runs(container):
            return False
        async with self._workers.holding(container.id):
            if not _is_between_runs(container):
                return False  # the pause was just over
            self._restarts.call_off(container.id)
            container.state.status = advance(container.state.status, Event.GIVE_UP_RESTART, container.id)
            container.has_been_manually_stopped = True
            await self._workers.call(self._store.save_lazy, container)
            self._waiters.exited(container)
        return True

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
        runs = container.id in self._live or _is_between_runs(container)
        if condition == "not-running" and not runs:
            future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
            future.set_result(WaitResult(container.state.exit_code, container.state.error))
            return future
        return self._waiters.for_removal(container) if condition == "removed" else self._waiters.for_exit(container)

    def attach(self, container: Container, wanted: Wanted) -> ContainerAttach:
        """A client of the present run, or of the next one when the container does not run."""
        tty = boolean(container.config, "Tty")
        session = ContainerAttach(
            self._workers, wanted, tty=tty, leave=lambda gone: self._waiters.left(container.id, gone)
        )
        live = self._live.get(container.id)
        if live is not None:
            session.begin(live.run)
        else:
            self._waiters.for_run(container.id, session)
        return session

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
            self._waiters.none_begins(container.id)
            self._restarts.forget(container.id)
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
            self._waiters.removed(container)

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

    async def aclose(self) -> None:
        """Stop following; the containers go on, and nobody waits for an end any more. Again is fine."""
        self._closing = True
        await self._restarts.aclose()
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
        self._output.close()


def _is_between_runs(container: Container) -> bool:
    return container.state.status is Status.RESTARTING


def _failure_code(error: LaminaError) -> int:
    """Source: moby daemon/start.go: 126 and 127 as a shell gives them, 128 for anything else."""
    if isinstance(error, CommandNotFound):
        return 127
    return 126 if isinstance(error, CommandNotExecutable) else 128
