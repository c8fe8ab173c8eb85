"""What a control group has used so far, in both versions (blocking).

Source: Documentation/admin-guide/cgroup-v1 (cpuacct, memory, blkio-controller, pids), cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lamina.kernel.cgroup import Cgroups

_TICK_NS = 10_000_000
"""USER_HZ is 100 on every machine that Linux runs on."""
_NO_LIMIT = 1 << 62
"""v1 says "no limit" with the largest multiple of the page size."""


@dataclass(frozen=True, slots=True)
class Transfers:
    """Bytes or operations of one kind on one block device."""

    major: int
    minor: int
    kind: str
    """As the kernel names it: `Read`, `Write`, `Total` in version 1; `read`, `write` in version 2."""
    amount: int


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """What a group used. None: not measured on this host, or no limit. A group that is gone has used nothing."""

    cpu_ns: int = 0
    user_ns: int = 0
    kernel_ns: int = 0
    cpus_ns: tuple[int, ...] | None = None
    """By CPU; version 1 alone."""
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    memory_failures: int | None = None
    memory_details: Mapping[str, int] = field(default_factory=dict)
    """`memory.stat`; its names differ between the versions."""
    processes: int | None = None
    process_limit: int | None = None
    oom_kills: int | None = None
    io_bytes: tuple[Transfers, ...] = ()
    io_operations: tuple[Transfers, ...] | None = None
    """Version 1 alone."""


def usage_of(cgroups: Cgroups, group: str) -> GroupUsage:
    """Read the files of a group such as `/lamina/<id>`."""
    return _version_two(cgroups, group) if cgroups.version == 2 else _version_one(cgroups, group)


def _version_one(cgroups: Cgroups, group: str) -> GroupUsage:
    def file(controller: str, name: str) -> Path:
        # A controller that is not mounted reads like a group that is gone.
        return cgroups.trees.get(controller, Path("/nonexistent")) / group.lstrip("/") / name

    ticks = _keyed(file("cpuacct", "cpuacct.stat"))
    throttling = _keyed(file("cpu", "cpu.stat"))
    return GroupUsage(
        cpu_ns=_number(file("cpuacct", "cpuacct.usage")) or 0,
        user_ns=ticks.get("user", 0) * _TICK_NS,
        kernel_ns=ticks.get("system", 0) * _TICK_NS,
        cpus_ns=tuple(int(word) for word in _text(file("cpuacct", "cpuacct.usage_percpu")).split()),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
        memory_bytes=_number(file("memory", "memory.usage_in_bytes")),
        memory_peak_bytes=_number(file("memory", "memory.max_usage_in_bytes")),
        memory_limit_bytes=_limit(file("memory", "memory.limit_in_bytes")),
        memory_failures=_number(file("memory", "memory.failcnt")),
        memory_details=_keyed(file("memory", "memory.stat")),
        processes=_number(file("pids", "pids.current")),
        process_limit=_number(file("pids", "pids.max")),
        oom_kills=_keyed(file("memory", "memory.oom_control")).get("oom_kill"),
        io_bytes=_transfers(file("blkio", "blkio.throttle.io_service_bytes_recursive")),
        io_operations=_transfers(file("blkio", "blkio.throttle.io_serviced_recursive")),
    )


def _version_two(cgroups: Cgroups, group: str) -> GroupUsage:
    assert cgroups.unified is not None
    path = cgroups.unified / group.lstrip("/")
    cpu = _keyed(path / "cpu.stat")
    return GroupUsage(
        cpu_ns=cpu.get("usage_usec", 0) * 1000,
        user_ns=cpu.get("user_usec", 0) * 1000,
        kernel_ns=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_usec", 0) * 1000,
        memory_bytes=_number(path / "memory.current"),
        memory_limit_bytes=_limit(path / "memory.max"),
        memory_details=_keyed(path / "memory.stat"),
        processes=_number(path / "pids.current"),
        process_limit=_number(path / "pids.max"),
        oom_kills=_keyed(path / "memory.events").get("oom_kill"),
        io_bytes=_io_stat(path / "io.stat"),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None  # gone, or "max"


def _limit(path: Path) -> int | None:
    found = _number(path)
    return None if found is None or found >= _NO_LIMIT else found


def _keyed(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _transfers(path: Path) -> tuple[Transfers, ...]:
    """Lines `8:0 Read 4096`; the sum of all devices at the end has no device."""
    found = []
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) == 3:
            major, _, minor = words[0].partition(":")
            found.append(Transfers(int(major), int(minor), words[1], int(words[2])))
    return tuple(found)


def _io_stat(path: Path) -> tuple[Transfers, ...]:
    """Lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`."""
    found = []
    for line in _text(path).splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        amounts = dict(word.split("=", 1) for word in words if "=" in word)
        for kind, key in (("read", "rbytes"), ("write", "wbytes")):
            if amounts.get(key, "").isdecimal():
                found.append(Transfers(int(major), int(minor), kind, int(amounts[key])))
    return tuple(found)
