"""Limits of a container as the runtime spec says them (pure).

Source: runtime-spec config-linux.md "Control groups", config.md "rlimits"; moby daemon/oci_linux.go
(WithResources), daemon/daemon_unix.go (getMemoryResources, getCPUResources).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lamina.containers.devices import Device, cgroup_rules, everything_rule
from lamina.errors import InvalidArgument, Unsupported
from lamina.jsonvalue import JsonObject, JsonValue, boolean, integer, objects, strings, text

CPU_PERIOD_US = 100_000
RLIMITS = frozenset(
    f"RLIMIT_{name}"
    for name in (
        "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS",
        "RTPRIO", "RTTIME", "SIGPENDING", "STACK",
    )
)  # fmt: skip
UNLIMITED = -1


def resources(
    host: JsonObject,
    devices: Iterable[Device],
    device_numbers: Mapping[str, tuple[int, int]],
    *,
    cgroup_version: int,
) -> JsonObject:
    """`linux.resources`. `device_numbers` are major and minor of the paths that block I/O limits name."""
    allowed = (
        everything_rule() if boolean(host, "Privileged") else cgroup_rules(devices, strings(host, "DeviceCgroupRules"))
    )
    found: JsonObject = {"devices": list(allowed)}
    for key, value in (
        ("memory", _memory(host, cgroup_version)),
        ("cpu", _cpu(host)),
        ("blockIO", _block_io(host, device_numbers)),
        ("pids", _pids(host)),
    ):
        if value:
            found[key] = value
    return found


def _memory(host: JsonObject, cgroup_version: int) -> JsonObject:
    found: JsonObject = {}
    for key, name in (("limit", "Memory"), ("reservation", "MemoryReservation")):
        if integer(host, name) > 0:
            found[key] = integer(host, name)
    if integer(host, "MemorySwap"):
        found["swap"] = integer(host, "MemorySwap")
    swappiness = host.get("MemorySwappiness")
    # cgroup v2 has no such knob; -1 is an old client's way to say nothing.
    if isinstance(swappiness, int) and swappiness >= 0 and cgroup_version == 1:
        found["swappiness"] = swappiness
    if boolean(host, "OomKillDisable") and cgroup_version == 1:
        found["disableOOMKiller"] = True
    return found


def _cpu(host: JsonObject) -> JsonObject:
    found: JsonObject = {}
    for key, name in (
        ("shares", "CpuShares"),
        ("quota", "CpuQuota"),
        ("period", "CpuPeriod"),
        ("realtimeRuntime", "CpuRealtimeRuntime"),
        ("realtimePeriod", "CpuRealtimePeriod"),
    ):
        if integer(host, name):
            found[key] = integer(host, name)
    if integer(host, "NanoCpus") > 0:
        found["period"] = CPU_PERIOD_US
        found["quota"] = integer(host, "NanoCpus") * CPU_PERIOD_US // 1_000_000_000
    for key, name in (("cpus", "CpusetCpus"), ("mems", "CpusetMems")):
        if text(host, name):
            found[key] = text(host, name)
    return found


def _pids(host: JsonObject) -> JsonObject:
    limit = host.get("PidsLimit")
    if not isinstance(limit, int) or isinstance(limit, bool):
        return {}
    return {"limit": limit if limit > 0 else UNLIMITED}


def _block_io(host: JsonObject, device_numbers: Mapping[str, tuple[int, int]]) -> JsonObject:
    found: JsonObject = {}
    if integer(host, "BlkioWeight"):
        found["weight"] = integer(host, "BlkioWeight")
    for key, name, value in (
        ("weightDevice", "BlkioWeightDevice", "weight"),
        ("throttleReadBpsDevice", "BlkioDeviceReadBps", "rate"),
        ("throttleWriteBpsDevice", "BlkioDeviceWriteBps", "rate"),
        ("throttleReadIOPSDevice", "BlkioDeviceReadIOps", "rate"),
        ("throttleWriteIOPSDevice", "BlkioDeviceWriteIOps", "rate"),
    ):
        entries: list[JsonValue] = []
        for entry in objects(host, name):
            path = text(entry, "Path")
            if path not in device_numbers:
                raise InvalidArgument(f"{path[:200]} is no device on this host")
            major, minor = device_numbers[path]
            entries.append({"major": major, "minor": minor, value: integer(entry, value.capitalize())})
        if entries:
            found[key] = entries
    return found


def throttled_paths(host: JsonObject) -> list[str]:
    """The devices that block I/O limits of this container name."""
    return sorted({text(entry, "Path") for name in _THROTTLES for entry in objects(host, name)})


_THROTTLES = (
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
)


def rlimits(host: JsonObject, hard_limits: Mapping[str, int], *, raises: bool) -> list[JsonValue]:
    """`process.rlimits`. `hard_limits` are the daemon's own; `raises`: it may give more than it has.

    Raises:
        InvalidArgument: no such limit, or the soft one is above the hard one.
        Unsupported: above the daemon's own, which it may not raise.
    """
    found: list[JsonValue] = []
    for entry in objects(host, "Ulimits"):
        name = text(entry, "Name")
        kind = f"RLIMIT_{name.upper()}"
        soft, hard = integer(entry, "Soft"), integer(entry, "Hard")
        if kind not in RLIMITS:
            raise InvalidArgument(f"invalid ulimit type: {name[:80]}")
        if hard != UNLIMITED and (soft > hard or soft == UNLIMITED):
            raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        own = hard_limits.get(kind, UNLIMITED)
        if not raises and own != UNLIMITED and (hard == UNLIMITED or hard > own):
            raise Unsupported(
                f"error setting rlimit type {name}: operation not permitted: the hard limit {hard} is above the "
                f"daemon's own {own}",
                hint="the daemon lacks CAP_SYS_RESOURCE: raise its own limit before it starts",
            )
        found.append({"type": kind, "hard": _unsigned(hard), "soft": _unsigned(soft)})
    return found


def _unsigned(limit: int) -> int:
    """RLIM_INFINITY as the runtime spec's uint64."""
    return 2**64 - 1 if limit == UNLIMITED else limit
