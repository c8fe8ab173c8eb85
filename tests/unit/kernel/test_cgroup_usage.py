"""What a group has used, read from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

from lamina.kernel.cgroup import Arrangement, Cgroups
from lamina.kernel.cgroup_usage import GroupUsage, Transfers, usage_of

MEMORY_STAT = "cache 4096\nrss 8192\ntotal_inactive_file 512\n"


def write(directory: Path, files: dict[str, str]) -> None:
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_text(content)


def test_version_two(tmp_path: Path) -> None:
    write(tmp_path / "lamina", {
        "memory.current": "5\n", "memory.max": "max\n", "memory.stat": "anon 3\n", "memory.events": "oom_kill 1\n",
        "cpu.stat": "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 9\nnr_throttled 2\nthrottled_usec 1\n",
        "pids.current": "2\n", "pids.max": "max\n", "io.stat": "8:0 rbytes=4096 wbytes=1 rios=1 wios=0\n9:1 \n",
    })  # fmt: skip
    assert usage_of(Cgroups(Arrangement.V2, {}, tmp_path, frozenset()), "/lamina") == GroupUsage(
        cpu_ns=7000, user_ns=4000, kernel_ns=3000, periods=9, throttled_periods=2, throttled_ns=1000,
        memory_bytes=5, memory_details={"anon": 3}, processes=2, oom_kills=1,
        io_bytes=(Transfers(8, 0, "read", 4096), Transfers(8, 0, "write", 1)),
    )  # fmt: skip


def test_version_one(tmp_path: Path) -> None:
    write(tmp_path / "cpuacct" / "g", {
        "cpuacct.usage": "77", "cpuacct.usage_percpu": "70 7 \n", "cpuacct.stat": "user 3\nsystem 4\n",
    })  # fmt: skip
    write(tmp_path / "cpu" / "g", {"cpu.stat": "nr_periods 9\nnr_throttled 2\nthrottled_time 1\n"})
    write(tmp_path / "memory" / "g", {
        "memory.usage_in_bytes": "5", "memory.limit_in_bytes": "9223372036854771712", "memory.max_usage_in_bytes": "6",
        "memory.failcnt": "0", "memory.stat": MEMORY_STAT, "memory.oom_control": "under_oom 0\noom_kill 2\n",
    })  # fmt: skip
    write(tmp_path / "pids" / "g", {"pids.current": "2\n", "pids.max": "64\n"})
    write(tmp_path / "blkio" / "g", {
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 1\nTotal 4097\n",
        "blkio.throttle.io_serviced_recursive": "8:0 Read 1\nTotal 1\n",
    })  # fmt: skip
    trees = {name: tmp_path / name for name in ("cpu", "cpuacct", "memory", "pids", "blkio")}
    assert usage_of(Cgroups(Arrangement.V1, trees, None, frozenset(trees)), "/g") == GroupUsage(
        cpu_ns=77, user_ns=30_000_000, kernel_ns=40_000_000, cpus_ns=(70, 7), periods=9, throttled_periods=2,
        throttled_ns=1, memory_bytes=5, memory_peak_bytes=6, memory_failures=0,
        memory_details={"cache": 4096, "rss": 8192, "total_inactive_file": 512}, processes=2, process_limit=64,
        oom_kills=2, io_bytes=(Transfers(8, 0, "Read", 4096), Transfers(8, 0, "Write", 1)),
        io_operations=(Transfers(8, 0, "Read", 1),),
    )  # fmt: skip


def test_a_group_that_is_gone_has_used_nothing(tmp_path: Path) -> None:
    assert usage_of(Cgroups(Arrangement.V2, {}, tmp_path, frozenset()), "/gone") == GroupUsage()
    gone = usage_of(Cgroups(Arrangement.V1, {"pids": tmp_path}, None, frozenset({"pids"})), "/gone")
    assert (gone.cpu_ns, gone.memory_bytes, gone.processes) == (0, None, None)
