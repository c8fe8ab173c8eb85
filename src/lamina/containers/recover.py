"""What a daemon that was killed left behind, put in order (async).

Containers have gone on under their monitors; their journals hold what they wrote meanwhile. Those that ended left their
exit codes. Each kind of leftover has its own small function.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

from lamina.containers.launching import REMOVES_VOLUMES, finish_journal, finish_journals, open_pump
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.logfile import JournalPump, journals
from lamina.containers.record import Container
from lamina.containers.restart import restart_policy
from lamina.containers.runtime import Launched, Runtime
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.errors import LaminaError, Unavailable
from lamina.jsonvalue import boolean, mapping, text
from lamina.programs.conmon import Monitor
from lamina.workers import Workers

_LOG = logging.getLogger(__name__)
_ALIVE = (Status.RUNNING, Status.PAUSED)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found: ids in the order of the store."""

    adopted: tuple[str, ...]
    ended: tuple[str, ...]
    removed: tuple[str, ...]


async def recover(*, store: ContainerStore, runtime: Runtime, lifecycle: Lifecycle, workers: Workers) -> Recovered:
    """Adopt living containers, finish ended ones, finish removals, sweep what belongs to nobody.

    Call it once, before requests are served, when storage and networks know their live containers.
    """
    adopted: list[str] = []
    ended: list[str] = []
    removed: list[str] = []
    for container in store.all():
        try:
            found = await _recover_one(container, store, runtime, lifecycle=lifecycle, workers=workers)
        except (LaminaError, OSError) as error:
            _LOG.warning("container %s cannot be recovered: %s", container.id[:12], error)
            continue
        {"adopted": adopted, "ended": ended, "removed": removed, "": []}[found].append(container.id)
    await workers.call(_sweep, runtime, {container.id for container in store.all()})
    return Recovered(tuple(adopted), tuple(ended), tuple(removed))


async def _recover_one(
    container: Container, store: ContainerStore, runtime: Runtime, *, lifecycle: Lifecycle, workers: Workers
) -> str:
    if container.state.status in (Status.REMOVING, Status.DEAD):
        container.state.status = Status.DEAD
        await lifecycle.remove(container, volumes=boolean(container.extra, REMOVES_VOLUMES))
        return "removed"
    monitor = await workers.call(runtime.find, container.id)
    if container.state.status in _ALIVE:
        if monitor is None:
            await lifecycle.settle_ended(container)
            return "ended"
        await _adopt(container, monitor, store, runtime, lifecycle=lifecycle, workers=workers)
        return "adopted"
    if monitor is not None:
        # Its start was never answered: whoever asked will ask again.
        monitor.close()
        await workers.call(runtime.delete, container.id)
    await workers.call(finish_journals, store.directory(container.id), container)
    if container.state.status is Status.RESTARTING or _wants_to_run(container):
        lifecycle.start_soon(container)
    return ""


def _wants_to_run(container: Container) -> bool:
    """Ended, and its policy starts it with the daemon."""
    return container.has_been_started_before and restart_policy(container.host_config).at_daemon_start(
        exit_code=container.state.exit_code,
        restarts=container.restart_count,
        by_hand=container.has_been_manually_stopped,
    )


async def _adopt(
    container: Container,
    monitor: Monitor,
    store: ContainerStore,
    runtime: Runtime,
    *,
    lifecycle: Lifecycle,
    workers: Workers,
) -> None:
    launched, pump = await workers.call(_take_up, container, monitor, store, runtime)
    lifecycle.adopt(container, launched, pump)
    container.state.pid = monitor.init_pid


def _take_up(
    container: Container, monitor: Monitor, store: ContainerStore, runtime: Runtime
) -> tuple[Launched, JournalPump | None]:
    """Blocking: the journal is converted again from its start, and only what the log lacks is written."""
    directory = store.directory(container.id)
    left = journals(directory)
    for journal in left[:-1]:
        finish_journal(journal, directory, container)
    pump = open_pump(left[-1], directory, container) if left else None
    attached = None
    unlogged = text(mapping(container.host_config, "LogConfig"), "Type") == "none"
    if unlogged or (boolean(container.config, "OpenStdin") and not boolean(container.config, "StdinOnce")):
        with contextlib.suppress(Unavailable):
            attached = runtime.attach(container.id)
    return Launched(monitor, attached), pump


def _sweep(runtime: Runtime, known: set[str]) -> None:
    """Blocking: runtime state of containers that no record names, from a crash between removal and clean-up."""
    for container_id in runtime.known():
        if container_id not in known:
            runtime.delete(container_id)
