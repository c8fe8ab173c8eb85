"""What starting and ending a container does outside the event loop (blocking).

One call each, so that a start or an end costs one thread and one change of threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lamina.clock import Clock
from lamina.containers.log_options import line_attributes, rotation
from lamina.containers.logfile import JournalPump, journals, json_log, new_journal
from lamina.containers.record import Container
from lamina.containers.runtime import Ended, Launch, Launched, Runtime
from lamina.containers.store import ContainerStore
from lamina.errors import LaminaError
from lamina.jsonvalue import JsonObject, boolean, mapping, text
from lamina.kernel import pidfd
from lamina.programs.conmon import Monitor

REMOVES_VOLUMES = "LaminaRemovesVolumes"
"""In the record of a container that is being removed: whether its anonymous volumes go with it."""

SIGKILL = 9
KILL_PATIENCE_S = 30.0
_LOG = logging.getLogger(__name__)
_MONITOR_LOST = 137


class Resources(Protocol):
    """What a container needs around its process (blocking)."""

    def acquire(self, container: Container) -> JsonObject:
        """Mount, join, prepare; returns the runtime spec. On error nothing stays acquired."""

    def adopt(self, container: Container) -> None:
        """An earlier daemon acquired this: `release` will give it back."""

    def release(self, container: Container) -> None:
        """The process is gone: unmount, leave. Again is fine."""

    def discard(self, container: Container, *, volumes: bool) -> None:
        """The container is being removed: its writable layer, and its anonymous volumes if so asked."""


class Launcher:
    """Begins and ends runs; any thread may call it, for one container only one at a time."""

    def __init__(self, store: ContainerStore, runtime: Runtime, resources: Resources, clock: Clock) -> None:
        self._store = store
        self._runtime = runtime
        self._resources = resources
        self._clock = clock

    def launch(self, container: Container) -> tuple[Launched, JournalPump | None]:
        """Everything between the request and a running command, in one go."""
        directory = self._store.directory(container.id)
        self.finish_journals(container)
        self._runtime.delete(container.id)
        spec = self._resources.acquire(container)
        pump: JournalPump | None = None
        try:
            journal: Path | None = None
            if text(mapping(container.host_config, "LogConfig"), "Type") != "none":
                journal = new_journal(directory, container.id)
                pump = open_pump(journal, directory, container)
                container.log_path = str(json_log(directory, container.id))
            launched = self._runtime.launch(
                Launch(
                    container.id,
                    spec,
                    journal,
                    terminal=boolean(container.config, "Tty"),
                    open_stdin=boolean(container.config, "OpenStdin"),
                    stdin_once=boolean(container.config, "StdinOnce"),
                )
            )
        except BaseException:
            if pump is not None:
                pump.finish()
                pump.close()
            self._resources.release(container)
            raise
        return launched, pump

    def finish_journals(self, container: Container) -> None:
        """What runs before this one wrote goes into the log, if a crash kept it from there."""
        finish_journals(self._store.directory(container.id), container)

    def collect(self, container: Container, monitor: Monitor, pump: JournalPump | None) -> Ended:
        """How it ended, with the log written out."""
        if pump is not None:
            finish(pump)
        ended = self._runtime.ended(container.id)
        if ended is not None:
            return ended
        # No exit file: somebody killed the monitor. What it watched is our child now and unwatched: end it.
        pidfd.send(monitor.init_pidfd, SIGKILL)
        pidfd.wait_ended(monitor.init_pidfd, KILL_PATIENCE_S)
        pidfd.reap(monitor.init_pidfd)
        return Ended(_MONITOR_LOST, self._clock.now_ns())

    def clean_up(self, container: Container) -> None:
        """The traces of an ended run go; what fails is logged and tried again at the next start."""
        works: tuple[Callable[[], None], ...] = (
            lambda: self._resources.release(container),
            lambda: self._store.save_lazy(container),
            # Last: while the exit file is there, a daemon that dies now finds the exit code again.
            lambda: self._runtime.delete(container.id),
        )
        for work in works:
            try:
                work()
            except (LaminaError, OSError) as error:
                _LOG.warning("cleaning up behind container %s: %s", container.id[:12], error)

    def erase(self, container: Container, *, volumes: bool) -> None:
        """Remove everything; the record says "being removed" first, so after a crash the rest is removed too."""
        container.extra[REMOVES_VOLUMES] = volumes
        self._store.save_lazy(container)
        self._resources.release(container)
        self._resources.discard(container, volumes=volumes)
        self._store.forget(container)


def open_pump(journal: Path, directory: Path, container: Container) -> JournalPump:
    """What carries the journal into the container's log, as its log options want it; `directory` is the container's.

    Raises:
        InvalidArgument: log options that make no sense.
    """
    wanted = mapping(container.host_config, "LogConfig")
    log = json_log(directory, container.id)
    return JournalPump(journal, log, attrs=line_attributes(container), rotation=rotation(wanted))


def finish_journals(directory: Path, container: Container) -> None:
    """What runs wrote goes into the log, if a crash kept it from there."""
    for journal in journals(directory):
        finish_journal(journal, directory, container)


def finish_journal(journal: Path, directory: Path, container: Container) -> None:
    """As `finish_journals`, for one of them."""
    pump = open_pump(journal, directory, container)
    pump.finish()
    pump.close()


def advance(pump: JournalPump) -> bool:
    """A log that cannot be written (disk full) must not stop the container; the journal keeps everything."""
    try:
        return pump.advance()
    except OSError as error:
        _LOG.warning("a container's log cannot be written, it stays in its journal: %s", error)
        return False


def finish(pump: JournalPump) -> None:
    """As `advance`, for the end of a run, which has to be recorded whatever is wrong with its log."""
    try:
        pump.finish()
    except Exception as error:  # noqa: BLE001 - the last step of a run's task
        _LOG.warning("a container's log cannot be written, it stays in its journal: %r", error)
