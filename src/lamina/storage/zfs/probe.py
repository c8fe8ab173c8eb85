"""Whether this host can keep layers on ZFS, and in which dataset (blocking)."""

from __future__ import annotations

import os
from pathlib import Path

from lamina.errors import InvalidArgument, Unsupported
from lamina.kernel import zfs
from lamina.kernel.mounts import mount_table
from lamina.storage.backing import backing_name
from lamina.storage.zfs.datasets import Parent, parent_facts


def probe(directory: Path) -> str:
    """The dataset that layers would lie in when the data root is at or below the existing `directory`.

    Raises:
        Unsupported: with the reason, and what would help as the hint.
    """
    zfs.require()
    backing = backing_name(directory)
    if backing != "zfs":
        raise Unsupported(
            f"the data root {directory} is on {backing}, not on zfs",
            hint="put the data root on zfs, or name a dataset: --storage-opt zfs.fsname=POOL/NAME",
        )
    device = os.stat(directory).st_dev
    for entry in mount_table():
        if entry.fstype == "zfs" and os.makedev(entry.major, entry.minor) == device:
            return entry.source
    raise Unsupported(
        f"the dataset that {directory} lies in is not in the mount table",
        hint="name it: --storage-opt zfs.fsname=POOL/NAME",
    )


def chosen(dataset: str) -> Parent:
    """The facts of the dataset that `zfs.fsname` names.

    Raises:
        Unsupported: ZFS is not there.
        InvalidArgument: no such dataset, or no file system.
    """
    zfs.require()
    try:
        found = parent_facts(dataset)
    except FileNotFoundError as error:
        raise InvalidArgument(
            f"there is no dataset {dataset}, which the option zfs.fsname names", hint=f"zfs create {dataset}"
        ) from error
    if not found.is_file_system:
        raise InvalidArgument(f"{dataset}, which the option zfs.fsname names, is no file system")
    return found
