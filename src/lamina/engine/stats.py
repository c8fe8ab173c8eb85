"""What a container uses, once or again and again (async).

Source: moby daemon/stats.go, daemon/stats_unix.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass

from lamina.clock import ZERO_TIME, Clock, rfc3339
from lamina.containers.gather import CGROUP_PARENT
from lamina.containers.record import Container
from lamina.containers.store import ContainerStore
from lamina.jsonvalue import JsonObject, JsonValue, text
from lamina.kernel.cgroup import Cgroups
from lamina.kernel.cgroup_usage import GroupUsage, Transfers, usage_of
from lamina.kernel.proc_usage import DeviceTraffic, cpu_times, host_memory_bytes, traffic_of
from lamina.workers import Workers

INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a running container."""

    read: str
    usage: GroupUsage
    host_cpu_ns: int
    cpus: int
    host_memory_bytes: int
    traffic: Mapping[str, DeviceTraffic]


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of a container, each with those before it, so that a client can tell the rate."""

    store: ContainerStore
    cgroups: Cgroups
    clock: Clock
    workers: Workers
    interval_s: float = INTERVAL_S

    async def __call__(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[JsonObject]:
        """Docker's `ContainerStatsResponse`: with `stream` one a second until the container is removed, else one.

        A lone one comes after an interval, so that it has figures before it, unless it is `one_shot`. A container
        that does not run has a name and an id only.

        Raises:
            NoSuchContainer: no such container.
        """
        container = self.store.resolve(ref)
        before: Sample | None = None
        if not stream and not one_shot and container.state.status.has_process:
            before = await self._look(container)
            await asyncio.sleep(self.interval_s)
        while True:
            now = await self._look(container)
            yield encode(container, now, before)
            if not stream:
                return
            before = now
            await asyncio.sleep(self.interval_s)
            if container not in self.store.all():
                return

    async def _look(self, container: Container) -> Sample | None:
        return await self.workers.call(self._sample, container)

    def _sample(self, container: Container) -> Sample | None:
        """Blocking. None when it does not run."""
        if not container.state.status.has_process:
            return None
        parent = text(container.host_config, "CgroupParent").rstrip("/") or CGROUP_PARENT
        host_cpu_ns, cpus = cpu_times()
        # The host's devices are nobody's own.
        shares_host = text(container.host_config, "NetworkMode") == "host"
        return Sample(
            read=rfc3339(self.clock.now_ns()),
            usage=usage_of(self.cgroups, f"{parent}/{container.id}"),
            host_cpu_ns=host_cpu_ns,
            cpus=cpus,
            host_memory_bytes=host_memory_bytes(),
            traffic={} if shares_host else traffic_of(container.state.pid),
        )


def encode(container: Container, now: Sample | None, before: Sample | None) -> JsonObject:
    """Docker's shape, in its order."""
    body: JsonObject = {
        "name": f"/{container.name}",
        "id": container.id,
        "read": now.read if now else ZERO_TIME,
        "preread": before.read if before else ZERO_TIME,
        "pids_stats": _pids(now.usage) if now else {},
        "blkio_stats": _block_io(now.usage if now else GroupUsage()),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(now) if now else {},
    }
    if now is not None and now.traffic:
        body["networks"] = {name: asdict(device) for name, device in sorted(now.traffic.items())}
    return body


def _pids(usage: GroupUsage) -> JsonObject:
    return _known({"current": usage.processes, "limit": usage.process_limit})


def _block_io(usage: GroupUsage) -> JsonObject:
    operations = usage.io_operations
    return {
        "io_service_bytes_recursive": _transfers(usage.io_bytes),
        "io_serviced_recursive": None if operations is None else _transfers(operations),
        **dict.fromkeys(
            (
                "io_queue_recursive", "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive",
                "io_time_recursive", "sectors_recursive",
            )
        ),
    }  # fmt: skip


def _transfers(found: tuple[Transfers, ...]) -> list[JsonValue]:
    return [{"major": one.major, "minor": one.minor, "op": one.kind, "value": one.amount} for one in found]


def _cpu(sample: Sample | None) -> JsonObject:
    usage = sample.usage if sample else GroupUsage()
    used: JsonObject = {"total_usage": usage.cpu_ns}
    if usage.cpus_ns:
        used["percpu_usage"] = list(usage.cpus_ns)
    used |= {"usage_in_kernelmode": usage.kernel_ns, "usage_in_usermode": usage.user_ns}
    body: JsonObject = {"cpu_usage": used}
    if sample is not None:
        body |= {"system_cpu_usage": sample.host_cpu_ns, "online_cpus": sample.cpus}
    body["throttling_data"] = {
        "periods": usage.periods,
        "throttled_periods": usage.throttled_periods,
        "throttled_time": usage.throttled_ns,
    }
    return body


def _memory(sample: Sample) -> JsonObject:
    usage = sample.usage
    limit = usage.memory_limit_bytes or sample.host_memory_bytes
    return _known(
        {
            "usage": usage.memory_bytes,
            "max_usage": usage.memory_peak_bytes,
            "stats": dict(usage.memory_details),
            "failcnt": usage.memory_failures or None,
            "limit": min(limit, sample.host_memory_bytes),
        }
    )


def _known(body: JsonObject) -> JsonObject:
    return {key: value for key, value in body.items() if value is not None}
