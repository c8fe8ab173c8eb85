"""Counters of the host and of network devices."""

from __future__ import annotations

import os
from pathlib import Path

from lamina.kernel.proc_usage import DeviceTraffic, cpu_times, host_memory_bytes, traffic_of

NET_DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:     656       8    1    2    0     0          0         0      516       7    3    4    0     0       0          0
"""


def test_cpu_time_is_the_sum_without_what_is_counted_twice(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 2 3 4 5 6 7 100 100 100\ncpu0 1 1 1\ncpu1 1 1 1\nintr 5\n")
    assert cpu_times(stat) == (280_000_000, 2)
    assert cpu_times()[1] >= 1
    assert host_memory_bytes() > 1 << 20


def test_traffic_is_told_by_device_without_the_loopback(tmp_path: Path) -> None:
    (tmp_path / "7" / "net").mkdir(parents=True)
    (tmp_path / "7" / "net" / "dev").write_text(NET_DEV)
    assert traffic_of(7, tmp_path) == {"eth0": DeviceTraffic(656, 8, 1, 2, 516, 7, 3, 4)}
    assert traffic_of(8, tmp_path) == {}
    assert "lo" not in traffic_of(os.getpid())
