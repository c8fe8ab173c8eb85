"""Mounts as values (blocking). The functions that carry them out come with the storage work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mount:
    """How to mount one file system.

    `target` is where. `flags` are MS_* bits. `data` is the option string as mount(2) takes it. `cwd` is the directory
    the call must be made in when `data` holds relative paths (long overlay stacks), else None.
    """

    fstype: str
    source: str
    target: Path
    flags: int = 0
    data: str = ""
    cwd: Path | None = None
