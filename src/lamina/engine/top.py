"""The processes of a container (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.containers.gather import CGROUP_PARENT
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.errors import Conflict, InvalidArgument, ProcessFailed
from lamina.jsonvalue import JsonObject, from_strings, text
from lamina.kernel.cgroup import Cgroups
from lamina.programs import ps
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class Top:
    """What the host's `ps` says of a container's processes, as Docker does it."""

    store: ContainerStore
    lifecycle: Lifecycle
    cgroups: Cgroups
    workers: Workers

    async def __call__(self, ref: str, ps_args: str = "") -> JsonObject:
        """`Titles` and `Processes`.

        Raises:
            NoSuchContainer: no such container.
            Conflict: it does not run.
            InvalidArgument: ps refuses the arguments, or they leave out the PID column.
        """
        container = self.store.resolve(ref)
        if container.state.status is Status.RESTARTING:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if container.state.status not in (Status.RUNNING, Status.PAUSED):
            raise Conflict(f"container {container.id} is not running")
        parent = text(container.host_config, "CgroupParent").rstrip("/") or CGROUP_PARENT
        titles, rows = await self.workers.call(self._look, f"{parent}/{container.id}", ps_args or "-ef")
        self.lifecycle.tell(container, "top")
        return {"Titles": from_strings(titles), "Processes": [from_strings(row) for row in rows]}

    def _look(self, group: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        """Blocking."""
        try:
            listing = ps.listing(ps_args.split())
        except ProcessFailed as error:
            raise InvalidArgument(f"error running ps: {error}") from error
        return ps.rows_of(listing, frozenset(self.cgroups.processes(group)))
