"""The rows of `docker info`, as dockerd has them (blocking: asks the pool)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lamina.errors import CorruptRecord
from lamina.storage.devicemapper.devices import Devices, loop_node
from lamina.storage.devicemapper.options import Options
from lamina.storage.devicemapper.place import Place
from lamina.storage.devicemapper.pool import METADATA_BLOCK, PoolStatus
from lamina.storage.devicemapper.records import BASE
from lamina.storage.devicemapper.sizes import human

Row = tuple[str, str]


def rows(place: Place, devices: Devices, fstype: str, options: Options) -> Sequence[Row]:
    """Docker's rows, in its order. Source: moby daemon/graphdriver/devmapper/driver.go Status."""
    found: list[Row] = [
        ("Pool Name", devices.pool.name),
        ("Pool Blocksize", human(devices.pool.block_bytes)),
        ("Base Device Size", human(devices.records[BASE].size_bytes)),
        ("Backing Filesystem", fstype),
        ("Udev Sync Supported", "false"),
    ]
    if place.is_ours:
        found += [
            ("Data file", os.fspath(loop_node(devices.pool.data_number))),
            ("Metadata file", os.fspath(loop_node(devices.pool.metadata_number))),
        ]
    if place.data_file is not None:
        found.append(("Data loop file", os.fspath(place.data_file)))
    if place.metadata_file is not None:
        found.append(("Metadata loop file", os.fspath(place.metadata_file)))
    try:
        found += _space(devices.pool.status(), devices.pool.block_bytes, place, options)
    except CorruptRecord as error:
        found.append(("Pool Failure", str(error)))
    return (
        *found,
        ("Deferred Removal Enabled", _go_bool(value=options.deferred_removal)),
        ("Deferred Deletion Enabled", _go_bool(value=options.deferred_deletion)),
        ("Deferred Deleted Device Count", str(len(devices.deleted()))),
    )


def _space(status: PoolStatus, block_bytes: int, place: Place, options: Options) -> list[Row]:
    data = ("Data", status.data_used * block_bytes, status.data_total * block_bytes, place.data_file)
    metadata = (
        "Metadata",
        status.metadata_used * METADATA_BLOCK,
        status.metadata_total * METADATA_BLOCK,
        place.metadata_file,
    )
    found: list[Row] = []
    for kind, used, total, file in (data, metadata):
        available = total - used
        if file is not None:
            available = min(available, free_below(file))
        found += [
            (f"{kind} Space Used", human(used)),
            (f"{kind} Space Total", human(total)),
            (f"{kind} Space Available", human(available)),
        ]
    least = status.data_total * options.min_free_percent // 100
    return [*found, ("Thin Pool Minimum Free Space", human(least * block_bytes))]


def free_below(file: Path) -> int:
    """Bytes that a loop file can still grow by where it lies."""
    room = os.statvfs(file)
    return room.f_bavail * room.f_frsize


def _go_bool(*, value: bool) -> str:
    return "true" if value else "false"
