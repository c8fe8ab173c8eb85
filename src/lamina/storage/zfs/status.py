"""What `docker info` shows of the dataset that all layers lie in (blocking).

Source: moby daemon/graphdriver/zfs/zfs.go, Status. dockerd shows what it read at its start; this is of now.
"""

from __future__ import annotations

from pathlib import Path

from lamina.storage.zfs.datasets import parent_facts, pool_of

_STATES = Path("/proc/spl/kstat/zfs")


def rows(parent: str) -> tuple[tuple[str, str], ...]:
    """The rows, with dockerd's names and in its order."""
    pool = pool_of(parent)
    try:
        facts = parent_facts(parent)
    except OSError as error:
        return (("Zpool", f"error while getting pool information {error.strerror}"), ("Zpool Health", "not available"))
    return (
        ("Zpool", pool),
        ("Zpool Health", _health(pool)),
        ("Parent Dataset", parent),
        ("Space Used By Parent", str(facts.used_bytes)),
        ("Space Available", str(facts.available_bytes)),
        ("Parent Quota", str(facts.quota_bytes) if facts.quota_bytes else "no"),
        ("Compression", facts.compression),
    )


def _health(pool: str) -> str:
    """As `zpool list` says it: ONLINE, DEGRADED, …; the kernel tells it without a process."""
    try:
        return (_STATES / pool / "state").read_text("ascii").strip()
    except OSError:
        return "not available"
