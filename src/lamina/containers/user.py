"""Who a container's process runs as: `user[:group]` against the container's own passwd and group (blocking).

The files are opened inside the container's root and read to a limit (CVE-2026-47262).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lamina.containers.accounts import ResolvedUser, resolve
from lamina.errors import InvalidArgument
from lamina.kernel.openat import read_in_root

MAX_FILE_BYTES = 4 << 20


def resolve_user(rootfs: Path, wanted: str, group_add: Sequence[str] = ()) -> ResolvedUser:
    """Numbers for `user`, `uid`, `user:group`, … in the tree at `rootfs`; empty means root.

    Raises:
        InvalidArgument: no such name, a number out of range, or a file of unreasonable size.
    """
    root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        passwd = _read(root_fd, "etc/passwd")
        group = _read(root_fd, "etc/group")
    finally:
        os.close(root_fd)
    return resolve(wanted, group_add, passwd, group)


def _read(root_fd: int, name: str) -> bytes:
    try:
        content = read_in_root(root_fd, name, MAX_FILE_BYTES + 1)
    except OSError:
        return b""  # absent, a directory, a device: a container without the file has numbers only
    if len(content) > MAX_FILE_BYTES:
        raise InvalidArgument(f"the container's /{name} is larger than {MAX_FILE_BYTES} bytes")
    return content
