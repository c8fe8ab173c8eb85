"""Attach a client to a container's streams; resize its terminal (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.containers.attach import AttachSession, Wanted
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.logs import LogReader
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.errors import Conflict
from lamina.jsonvalue import boolean
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class Attach:
    """Both ends of a container's streams for one client."""

    store: ContainerStore
    lifecycle: Lifecycle
    workers: Workers

    async def __call__(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, stream: bool, logs: bool
    ) -> AttachSession:
        """A container that does not run yet is waited for: its client gets everything from the start.

        `logs`: what was written before comes first. Without `stream` that is all.

        Raises:
            NoSuchContainer: no such container.
            Conflict: it is frozen.
        """
        container = self.store.resolve(ref)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        run = self.lifecycle.run_of(container)
        running = run is not None
        wanted = Wanted(
            stdin=stdin and boolean(container.config, "OpenStdin"),
            stdout=stdout,
            stderr=stderr,
            from_start=logs or not running,
        )
        # Where the session begins in the journal is where its history ends: nothing may come in between.
        ends = run.start if run is not None else None
        session = self.lifecycle.attach(container, wanted)
        if logs:
            directory = self.store.directory(container.id)
            live = run.parts if run is not None else None
            session.history = await self.workers.call(LogReader, directory, container.id, live=live, until=ends)
        if not stream and not running:
            session.cancel()
        elif not stream:
            session.stop_at_present()
        self.lifecycle.tell(container, "attach")
        return session


@dataclass(frozen=True, slots=True)
class Resize:
    """Set the size of a container's terminal."""

    store: ContainerStore
    lifecycle: Lifecycle

    async def __call__(self, ref: str, height: int, width: int) -> None:
        """Raises NoSuchContainer; Conflict when it does not run."""
        await self.lifecycle.resize(self.store.resolve(ref), height, width)
