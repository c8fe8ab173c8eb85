"""How much a directory of a layer takes, counted as Docker counts it (blocking).

Source: moby daemon/pkg/directory, Size: the length of everything but directories, each inode once.
"""

from __future__ import annotations

import os
from pathlib import Path

from lamina.storage.driver import Usage


def usage_of(directory: Path, *, counts_devices: bool) -> Usage:
    """Bytes and inodes below `directory` (not itself). Without `counts_devices`, 0:0 devices (whiteouts) are no inode.

    A name that vanishes meanwhile is left out.
    """
    size = 0
    inodes = 0
    seen: set[int] = set()
    pending = [os.fspath(directory)]
    while pending:
        with os.scandir(pending.pop()) as listing:
            for entry in listing:
                if entry.is_dir(follow_symlinks=False):
                    inodes += 1
                    pending.append(entry.path)
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if status.st_nlink > 1:
                    if status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                if not counts_devices and status.st_mode & 0o170000 == 0o020000 and status.st_rdev == 0:
                    continue
                size += status.st_size
                inodes += 1
    return Usage(size, inodes)
