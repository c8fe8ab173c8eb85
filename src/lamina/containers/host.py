"""What containers may be given on this host, looked up once (blocking)."""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from lamina.containers import capabilities
from lamina.containers.resources import RLIMITS, UNLIMITED
from lamina.containers.validate import Limits
from lamina.kernel import cgroup

INIT_PROGRAMS = ("docker-init", "tini-static", "catatonit", "tini")
"""Programs that serve as process 1 with `--init`; the last is linked dynamically and works in few images only."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """`capabilities` are the daemon's own; `hard_limits` its own rlimits by name (UNLIMITED for none)."""

    capabilities: frozenset[str]
    machine: str
    kernel: tuple[int, int]
    hard_limits: Mapping[str, int]
    cgroups: cgroup.Cgroups
    init_path: str = ""


def detect(init_path: str = "") -> HostFacts:
    """Look at this host and at our own process; `init_path` is the configured init program, if any."""
    return HostFacts(
        capabilities=own_capabilities(),
        machine=platform.machine(),
        kernel=kernel_version(platform.release()),
        hard_limits=_hard_limits(),
        cgroups=cgroup.detect(),
        init_path=init_path or find_init(),
    )


def limits(facts: HostFacts, runtimes: Collection[str]) -> Limits:
    """What requests are checked against; `runtimes` are the names that a request may ask for."""
    return Limits(
        controllers=facts.cgroups.controllers,
        limits_swap=facts.cgroups.limits_swap,
        cpus=os.cpu_count() or 1,
        runtimes=frozenset(runtimes),
        hard_limits=facts.hard_limits,
        raises_limits="CAP_SYS_RESOURCE" in facts.capabilities,
    )


def own_capabilities() -> frozenset[str]:
    """What we can give away: permitted and in the bounding set."""
    masks = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cap")
    )
    return capabilities.from_mask(int(masks["CapBnd"], 16) & int(masks["CapPrm"], 16))


def kernel_version(release: str) -> tuple[int, int]:
    """Major and minor of `uname -r`; zeros when it says something else."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def find_init(search: str = "/usr/local/libexec/docker:/usr/libexec/docker:/usr/local/bin:/usr/bin:/bin") -> str:
    """The first init program in the usual places; empty when there is none."""
    for name in INIT_PROGRAMS:
        for directory in search.split(":"):
            path = os.path.join(directory, name)
            if os.access(path, os.X_OK):
                return os.path.realpath(path)
    return ""


def _hard_limits() -> dict[str, int]:
    found: dict[str, int] = {}
    for name in RLIMITS:
        number = getattr(resource, name, None)
        if number is None:
            continue  # Python has no name for it: LOCKS
        hard = resource.getrlimit(number)[1]
        found[name] = UNLIMITED if hard == resource.RLIM_INFINITY else hard
    return found
