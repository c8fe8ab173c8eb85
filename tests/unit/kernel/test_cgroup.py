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


def test_who_is_in_a_group(tmp_path):
    (tmp_path / "lamina").mkdir()
    (tmp_path / "lamina" / "cgroup.procs").write_text("12\n13\n")
    cgroups = Cgroups(Arrangement.V2, {}, tmp_path, frozenset())
    assert cgroups.processes("/lamina") == [12, 13]
    assert cgroups.processes("/gone") == []


def test_this_host_has_an_arrangement():
    found = detect()
    assert found.version in {1, 2}
    assert own_group().startswith("/")
