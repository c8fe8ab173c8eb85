from pathlib import Path

from lamina.kernel.cgroup import Arrangement, Cgroups, detect, own_group
from lamina.kernel.mounts import MountEntry


def entry(fstype: str, target: Path | str, options: str = "rw") -> MountEntry:
    return MountEntry(1, 0, 0, 1, "/", str(target), "rw", (), fstype, fstype, options)


def test_one_tree_for_each_controller_is_version_one():
    found = detect([entry("cgroup", "/c/cpu,cpuacct", "rw,cpu,cpuacct"), entry("cgroup", "/c/memory", "rw,memory")])
    assert (found.arrangement, found.version) == (Arrangement.V1, 1)
    assert found.controllers == {"cpu", "cpuacct", "memory"}
    assert found.paths("/lamina/x") == [Path("/c/cpu,cpuacct/lamina/x"), Path("/c/memory/lamina/x")]


def test_a_second_version_beside_the_first_counts_as_the_first(tmp_path):
    found = detect([entry("cgroup", "/c/pids", "rw,pids"), entry("cgroup2", tmp_path)])
    assert (found.arrangement, found.version) == (Arrangement.MIXED, 1)
    assert found.paths("x") == [Path("/c/pids/x"), tmp_path / "x"]


def test_one_tree_alone_is_version_two(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    found = detect([entry("cgroup2", tmp_path)])
    assert (found.arrangement, found.version) == (Arrangement.V2, 2)
    assert found.can("blkio")
    assert found.can("memory")
    assert not found.can("cpuset")


def test_a_host_without_any_says_so():
    assert detect([]).arrangement is Arrangement.ABSENT


def test_use_is_read_from_version_two(tmp_path):
    group = tmp_path / "lamina"
    group.mkdir()
    for name, content in {
        "memory.current": "5\n", "memory.max": "max\n", "cpu.stat": "usage_usec 7\nuser_usec 1\n", "pids.current": "2\n",
        "memory.events": "oom_kill 1\n", "cgroup.procs": "12\n13\n",
    }.items():  # fmt: skip
        (group / name).write_text(content)
    cgroups = Cgroups(Arrangement.V2, {}, tmp_path, frozenset())
    stats = cgroups.stats("/lamina")
    assert (stats.memory_bytes, stats.memory_limit_bytes, stats.cpu_ns) == (5, None, 7000)
    assert (stats.processes, stats.oom_kills) == (2, 1)
    assert cgroups.processes("/lamina") == [12, 13]


def test_use_is_read_from_version_one(tmp_path):
    for controller, name, content in (
        ("memory", "memory.usage_in_bytes", "5"),
        ("memory", "memory.limit_in_bytes", "9223372036854771712"),
        ("cpuacct", "cpuacct.usage", "7"),
    ):
        (tmp_path / controller / "g").mkdir(parents=True, exist_ok=True)
        (tmp_path / controller / "g" / name).write_text(content)
    trees = {name: tmp_path / name for name in ("memory", "cpuacct")}
    stats = Cgroups(Arrangement.V1, trees, None, frozenset(trees)).stats("g")
    assert (stats.memory_bytes, stats.memory_limit_bytes, stats.cpu_ns, stats.processes) == (5, None, 7, None)


def test_a_group_that_is_gone_has_used_nothing(tmp_path):
    cgroups = Cgroups(Arrangement.V2, {}, tmp_path, frozenset())
    assert cgroups.stats("/gone").memory_bytes is None
    assert cgroups.processes("/gone") == []


def test_this_host_has_an_arrangement():
    found = detect()
    assert found.version in {1, 2}
    assert own_group().startswith("/")
