"""What the whole host's CPUs have done, and what went over the network devices of a process (blocking).

Source: proc(5), /proc/stat and /proc/pid/net/dev.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK_NS = 10_000_000


@dataclass(frozen=True, slots=True)
class DeviceTraffic:
    """One network device, as seen from inside."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def cpu_times(stat: Path = Path("/proc/stat")) -> tuple[int, int]:
    """(nanoseconds that all CPUs have been on, busy and idle, how many there are)."""
    total = cpus = 0
    for line in stat.read_text().splitlines():
        name, *words = line.split()
        if name == "cpu":
            # user nice system idle iowait irq softirq; what follows is counted in these already, or elsewhere.
            total = sum(int(word) for word in words[:7]) * _TICK_NS
        elif name.startswith("cpu"):
            cpus += 1
    return total, cpus


def host_memory_bytes() -> int:
    """The memory of this host."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def traffic_of(pid: int, proc: Path = Path("/proc")) -> Mapping[str, DeviceTraffic]:
    """By device, without the loopback; empty when the process is gone."""
    try:
        lines = (proc / str(pid) / "net" / "dev").read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines[2:]:
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            continue
        numbers = [int(word) for word in counters.split()]
        found[name.strip()] = DeviceTraffic(*numbers[:4], *numbers[8:12])
    return found
