"""How much one layer takes, found without mounting it where anybody would see it (blocking)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.kernel import libc
from lamina.rootfs.diff import change_usage
from lamina.storage.driver import Usage
from lamina.storage.usage import usage_of


def usage_between(dataset: str, parent: str | None) -> Usage:
    """What the layer's files take that its parent does not have, counted as Docker counts it."""
    with _looking_into(dataset) as tree:
        if parent is None:
            return usage_of(tree, counts_devices=True)
        with _looking_into(parent) as below:
            size_bytes, inodes = change_usage(tree, below)
            return Usage(size_bytes, inodes)


@contextmanager
def _looking_into(dataset: str) -> Iterator[Path]:
    """The root of a dataset on a mount that hangs on a descriptor alone: no path shows it, it ends with the process."""
    try:
        fd = _mounted(dataset, read_only=True)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        fd = _mounted(dataset, read_only=False)  # it is mounted writable: a super block has one mind
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _mounted(dataset: str, *, read_only: bool) -> int:
    fd = libc.fsopen("zfs")
    try:
        libc.fsconfig_string(fd, "source", dataset)
        if read_only:
            libc.fsconfig_flag(fd, "ro")
        libc.fsconfig_create(fd, dataset)
        return libc.fsmount(fd)
    finally:
        os.close(fd)
