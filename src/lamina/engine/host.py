"""What there is to say about this host and this daemon (a blocking module: small files of /proc and /etc)."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamina.kernel.cgroup import Cgroups
from lamina.kernel.durable import write_file
from lamina.storage.select import DriverReport

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class Program:
    """A program that Lamina works through: `path` and the first line of its version."""

    name: str
    path: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What does not change while the daemon runs."""

    engine_id: str
    engine_version: str
    data_root: Path
    cgroups: Cgroups
    drivers: Callable[[], Sequence[DriverReport]]
    """Every known storage driver and whether this data root could use it (blocking, found out once)."""
    runtimes: Sequence[Program]
    """The default one first."""
    monitor: Program | None = None
    init: Program | None = None
    registry_mirrors: Sequence[str] = ()
    insecure_registries: Sequence[str] = ()
    """Host names and CIDRs, as configured."""
    labels: Sequence[str] = ()
    debug: bool = False
    firewall: str = "nftables"
    warnings: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class HostView:
    """The host at this moment."""

    name: str
    kernel_version: str
    machine: str
    architecture: str
    """Go's name."""
    operating_system: str
    os_version: str
    cpus: int
    memory_bytes: int
    forwards_ipv4: bool
    filters_bridged_ipv4: bool
    """Packets between ports of one bridge pass the packet filter."""
    filters_bridged_ipv6: bool
    has_seccomp: bool
    open_files: int


def look() -> HostView:
    """Read the host's facts; what cannot be read is empty or 0."""
    release = _os_release()
    machine = platform.machine()
    return HostView(
        name=socket.gethostname(),
        kernel_version=platform.release(),
        machine=machine,
        architecture=_GO_ARCHITECTURES.get(machine, machine),
        operating_system=release.get("PRETTY_NAME") or release.get("NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        forwards_ipv4=_text("/proc/sys/net/ipv4/ip_forward") == "1",
        filters_bridged_ipv4=_text("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1",
        filters_bridged_ipv6=_text("/proc/sys/net/bridge/bridge-nf-call-ip6tables") == "1",
        has_seccomp="\nSeccomp:" in _text("/proc/self/status"),
        open_files=len(os.listdir("/proc/self/fd")),
    )


def engine_id(data_root: Path) -> str:
    """The identity of this data root, made at first use; dockerd keeps its own in the same file."""
    path = data_root / "engine-id"
    found = _text(path)
    if found:
        return found
    made = str(uuid.uuid4())
    write_file(path, made.encode(), 0o600)
    return made


def _os_release() -> Mapping[str, str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        found = _text(path)
        if found:
            pairs = (line.partition("=") for line in found.splitlines())
            return {name: value.strip("\"'") for name, equals, value in pairs if equals}
    return {}


def _text(path: str | Path) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read(1 << 16).strip()
    return ""
