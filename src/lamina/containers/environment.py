"""The environment of a container's processes (pure). Source: moby container.CreateDaemonEnvironment."""

from __future__ import annotations

from collections.abc import Iterable

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def process_env(hostname: str, wanted: Iterable[str], *, tty: bool) -> list[str]:
    """Docker's defaults, then `wanted` on top. An entry without `=` takes a variable away."""
    defaults = [DEFAULT_PATH, f"HOSTNAME={hostname}"]
    if tty:
        defaults.append("TERM=xterm")
    return merged(defaults, wanted)


def merged(lower: Iterable[str], upper: Iterable[str]) -> list[str]:
    """Variables of both, each once, in the order of first mention; `upper` wins; `NAME` alone takes it away."""
    found: dict[str, str | None] = {}
    for entry in lower:
        found[entry.partition("=")[0]] = entry
    for entry in upper:
        name, separator, _ = entry.partition("=")
        found[name] = entry if separator else None
    return [entry for entry in found.values() if entry is not None]
