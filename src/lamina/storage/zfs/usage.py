"""How much one layer takes, found without mounting it where anybody would see it (blocking)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.kernel import libc
from lamina.rootfs.diff import Touched, change_usage
from lamina.storage.driver import Usage
from lamina.storage.usage import usage_of


def usage_alone(dataset: str) -> Usage:
    """What the files of a layer without parent take, counted as Docker counts it."""
    with looking_into(dataset) as tree:
        return usage_of(tree, counts_devices=True)


def usage_between(dataset: str, parent: str, touched: Touched | None) -> Usage:
    """What the layer's files take that its parent does not have."""
    with looking_into(dataset) as tree, looking_into(parent) as below:
        size_bytes, inodes = change_usage(tree, below, touched)
        return Usage(size_bytes, inodes)


@contextmanager
def looking_into(dataset: str) -> Iterator[Path]:
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
