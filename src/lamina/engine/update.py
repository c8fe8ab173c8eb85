"""Change the limits and the restart policy of a container, also while it runs (async).

Source: moby daemon/update.go, container.UpdateContainer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lamina.containers.lifecycle import Lifecycle
from lamina.containers.record import Container
from lamina.containers.resources import resources
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.containers.validate import Limits, check_restart_policy, validate_limits
from lamina.errors import Conflict, InvalidArgument, NotServed
from lamina.ids import ContainerId
from lamina.jsonvalue import JsonObject, boolean, integer, mapping, text
from lamina.workers import Workers

_LIMITS = (
    "BlkioWeight", "CpuPeriod", "CpuQuota", "CpuShares", "CpusetCpus", "CpusetMems", "Memory", "MemoryReservation",
    "MemorySwap", "NanoCpus", "PidsLimit",
)  # fmt: skip


class SetsLimits(Protocol):
    """What changes the limits of a running container (blocking)."""

    def update(self, container_id: ContainerId, limits: JsonObject) -> None:
        """Set the limits of `linux.resources` that are given."""


@dataclass(frozen=True, slots=True)
class Update:
    """Change limits and restart policy of a container; what is zero or missing stays as it is."""

    store: ContainerStore
    lifecycle: Lifecycle
    runtime: SetsLimits
    limits: Limits
    cgroup_version: int
    workers: Workers

    async def __call__(self, ref: str, wanted: JsonObject) -> list[str]:
        """Returns warnings.

        Raises:
            NoSuchContainer: no such container.
            Conflict: it is being removed.
            InvalidArgument: limits that make no sense, alone or with those that stay.
            NotServed: something that cannot be changed yet, named.
        """
        container = self.store.resolve(ref)
        async with self.workers.holding(container.id):
            if container.state.status in {Status.REMOVING, Status.DEAD}:
                raise Conflict(f"Cannot update container {container.id}: it is marked for removal")
            changes = _changes(wanted, container.host_config)
            host: JsonObject = {**container.host_config, **changes}
            warnings = validate_limits(host, self.limits)
            await self.workers.call(self._apply, container, host)
        self.lifecycle.tell(container, "update")
        return warnings

    def _apply(self, container: Container, host: JsonObject) -> None:
        """Blocking. The record follows the kernel, which may refuse."""
        if container.state.status.has_process:
            given = {key: host[key] for key in _LIMITS if key in host}
            limits = resources(given, (), {}, cgroup_version=self.cgroup_version)
            del limits["devices"]
            self.runtime.update(container.id, limits)
        container.host_config = host
        self.store.save(container)


def _changes(wanted: JsonObject, present: JsonObject) -> JsonObject:
    found: JsonObject = {key: value for key, value in wanted.items() if value and key != "RestartPolicy"}
    policy = mapping(wanted, "RestartPolicy")
    if text(policy, "Name"):
        check_restart_policy({"RestartPolicy": policy})
        if boolean(present, "AutoRemove"):
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        found["RestartPolicy"] = {
            "Name": text(policy, "Name"),
            "MaximumRetryCount": integer(policy, "MaximumRetryCount"),
        }
    others = sorted(set(found) - {*_LIMITS, "RestartPolicy"})
    if others:
        raise NotServed(f"changing {others[0][:40]} of a container is not served yet")
    if "NanoCpus" in found:
        found = {"CpuPeriod": 0, "CpuQuota": 0, **found}
    elif integer(present, "NanoCpus") and not {"CpuPeriod", "CpuQuota"}.isdisjoint(found):
        raise InvalidArgument("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")
    swap = integer(present, "MemorySwap")
    if 0 < swap < integer(found, "Memory") and "MemorySwap" not in found:
        raise InvalidArgument(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    return found
