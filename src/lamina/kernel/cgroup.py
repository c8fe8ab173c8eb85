"""Control groups of this host: which version, where, what they can limit, who is in them (blocking).

Three arrangements occur: v1 (a directory tree for each controller), v2 (one tree), and mixed (v1 with a v2 tree beside
it that has no controllers). Mixed counts as version 1: limits are set in the v1 trees.

Source: cgroups(7); Documentation/admin-guide/cgroup-v1, cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lamina.kernel.mounts import MountEntry, mount_table

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb")


class Arrangement(Enum):
    """How the host has its control groups mounted."""

    V1 = "v1"
    V2 = "v2"
    MIXED = "mixed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The control group trees of this host. `trees` maps a v1 controller to its root; `unified` is the v2 root."""

    arrangement: Arrangement
    trees: Mapping[str, Path]
    unified: Path | None
    controllers: frozenset[str]

    @property
    def version(self) -> int:
        """1 or 2: where limits are set."""
        return 2 if self.arrangement is Arrangement.V2 else 1

    @property
    def limits_swap(self) -> bool:
        """Whether memory and swap can be limited together."""
        if self.version == 1:
            tree = self.trees.get("memory")
            return tree is not None and (tree / "memory.memsw.limit_in_bytes").exists()
        return "memory" in self.controllers and Path("/proc/swaps").exists()

    def can(self, controller: str) -> bool:
        """Whether this controller can be used."""
        return controller in self.controllers

    def paths(self, group: str) -> list[Path]:
        """The directories of a group such as `/lamina/<id>`, in every tree once."""
        roots = list(dict.fromkeys(self.trees.values()))
        if self.unified is not None:
            roots.append(self.unified)
        return [root / group.lstrip("/") for root in roots]

    def processes(self, group: str) -> list[int]:
        """The processes in a group; empty when the group is gone."""
        for path in self.paths(group):
            try:
                listed = (path / "cgroup.procs").read_text()
            except OSError:
                continue
            return [int(line) for line in listed.split()]
        return []


def detect(mounts: Iterable[MountEntry] | None = None) -> Cgroups:
    """Look at this host's mounts."""
    trees: dict[str, Path] = {}
    unified: Path | None = None
    for entry in mount_table() if mounts is None else mounts:
        if entry.fstype == "cgroup2" and unified is None:
            unified = Path(entry.target)
        elif entry.fstype == "cgroup":
            options = set(entry.super_options.split(","))
            for controller in CONTROLLERS:
                if controller in options:
                    trees.setdefault(controller, Path(entry.target))
    if trees:
        arrangement = Arrangement.MIXED if unified is not None else Arrangement.V1
        return Cgroups(arrangement, trees, unified, frozenset(trees))
    if unified is None:
        return Cgroups(Arrangement.ABSENT, {}, None, frozenset())
    return Cgroups(Arrangement.V2, {}, unified, _v2_controllers(unified))


def _v2_controllers(root: Path) -> frozenset[str]:
    """Under the names of v1, so that callers need to know one set: `io` is blkio; devices and freezer are built in."""
    try:
        listed = set((root / "cgroup.controllers").read_text().split())
    except OSError:
        listed = set()
    if "io" in listed:
        listed.add("blkio")
    if "cpu" in listed:
        listed.add("cpuacct")
    return frozenset(listed & set(CONTROLLERS)) | {"devices", "freezer"}


def own_group(controller: str = "") -> str:
    """The group of this process in the tree of a v1 controller; of the v2 tree when empty."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"
