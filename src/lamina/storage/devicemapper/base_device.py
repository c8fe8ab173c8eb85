"""The base device: the empty file system that every layer without parent is a snapshot of (blocking).

It is made once. Its UUID is in the records, so that another pool under the same name is noticed.
Source: moby daemon/graphdriver/devmapper/deviceset.go setupBaseImage, createFilesystem, growFS.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import Conflict, CorruptRecord, InvalidArgument, NoSuchLayer, Unsupported
from lamina.kernel import libc
from lamina.kernel.detached import grow, mounted_apart
from lamina.kernel.superblock import Superblock, read_superblock
from lamina.programs import run as programs
from lamina.storage.devicemapper.devices import Devices
from lamina.storage.devicemapper.options import DEFAULT_BASE_SIZE, Options
from lamina.storage.devicemapper.records import BASE, DeviceSet
from lamina.storage.devicemapper.sizes import human

_LOG = logging.getLogger(__name__)
_MKFS_S = 3600.0


@dataclass(frozen=True, slots=True)
class Base:
    """What every layer's file system is."""

    fstype: str
    uuid: str


def known_base(devices: Devices) -> tuple[Base | None, list[str]]:
    """The base that the records tell of, checked against the pool, and warnings; None when it is yet to be made.

    Raises:
        Conflict: the pool has another base: it belongs to another store.
        CorruptRecord: the base cannot be read.
    """
    warnings: list[str] = []
    try:
        told = devices.metadata.device_set() or DeviceSet()
    except CorruptRecord as error:
        warnings.append(f"{error}: it is written again from the base device")
        told = DeviceSet()
    devices.next_device_id = told.next_device_id
    if BASE in devices.damaged:
        raise CorruptRecord(
            f"{devices.damaged[BASE]}: it says which device of the pool is the base of all layers",
            hint='put it back; as a rule {"device_id":1,"size":BYTES,"transaction_id":1,"initialized":true,'
            '"deleted":false}',
        )
    try:
        record = devices.record(BASE)
    except NoSuchLayer:
        return None, warnings
    if not record.initialized:
        return None, warnings
    found = _superblock(devices)
    if told.base_uuid and told.base_uuid != found.uuid:
        raise Conflict(
            f"the base device of thin pool {devices.pool.name} has the UUID {found.uuid}, the records say "
            f"{told.base_uuid}: the pool is not the one this store was made on",
            hint="give the right pool (dm.thinpooldev), or begin with a new data root",
        )
    if (told.base_uuid, told.base_fstype) != (found.uuid, found.fstype):
        devices.metadata.write_device_set(DeviceSet(told.next_device_id, found.uuid, found.fstype))
    return Base(found.fstype, found.uuid), warnings


def make_base(devices: Devices, options: Options) -> Base:
    """Make the base device and its file system; what a crash left of an earlier try goes first.

    Raises:
        Conflict: the pool is in use already, by somebody who is not in our records.
        Unsupported: no mkfs for a file system that this kernel has.
    """
    if BASE in devices.records:
        devices.delete(BASE, at_once=True)
    else:
        _check_unused(devices)
    fstype = options.fstype or default_fstype()
    devices.metadata.write_device_set(DeviceSet(devices.next_device_id, "", fstype))
    devices.create_base(options.base_size or DEFAULT_BASE_SIZE)
    with devices.active(BASE) as device:
        _make_filesystem(fstype, device.node, options.mkfs_args)
        found = read_superblock(device.node)
    if found is None:
        raise CorruptRecord(f"mkfs.{fstype} left no file system on the base device")
    devices.pool.flush()
    devices.mark_initialized(BASE)
    devices.metadata.write_device_set(DeviceSet(devices.next_device_id, found.uuid, found.fstype))
    return Base(found.fstype, found.uuid)


def check_size(devices: Devices, base: Base, options: Options) -> None:
    """Let the base grow when a larger one was asked for: new layers without parent are larger then.

    Raises:
        InvalidArgument: a smaller one was asked for.
    """
    present = devices.record(BASE).size_bytes
    if options.base_size is None or options.base_size == present:
        return
    if options.base_size < present:
        raise InvalidArgument(
            f"dm.basesize: the base device cannot be smaller than {human(present)}, which it is", hint="leave it out"
        )
    grow_layer(devices, BASE, base, options.base_size)


def grow_layer(devices: Devices, name: str, base: Base, size_bytes: int) -> None:
    """Give a device and the file system on it more room."""
    devices.resize(name, size_bytes)
    with devices.active(name) as device:
        found = read_superblock(device.node)
        if found is None:
            raise CorruptRecord(f"layer {name or 'base'} has no file system on its device")
        with mounted_apart(base.fstype, device.node, options=own_options(base.fstype)) as root:
            grow(root, found, size_bytes)


def own_options(fstype: str) -> str:
    """Snapshots of one xfs have one UUID, which it refuses to mount twice."""
    return "nouuid" if fstype == "xfs" else ""


def default_fstype() -> str:
    """The file system when none was asked for: xfs where it can be made and mounted, else ext4. Docker's choice.

    Raises:
        Unsupported: neither.
    """
    for fstype in ("xfs", "ext4"):
        if programs.installed(f"mkfs.{fstype}") and kernel_has(fstype):
            return fstype
    raise Unsupported("there is no mkfs for layers' file systems", hint="apt-get install xfsprogs (or e2fsprogs)")


def kernel_has(fstype: str) -> bool:
    """Whether the kernel has the file system; asking loads its module."""
    try:
        os.close(libc.fsopen(fstype))
    except OSError:
        return False
    return True


def _superblock(devices: Devices) -> Superblock:
    with devices.active(BASE) as device:
        found = read_superblock(device.node)
    if found is None:
        raise CorruptRecord(f"the base device of thin pool {devices.pool.name} holds no file system that is known here")
    return found


def _check_unused(devices: Devices) -> None:
    """A pool that somebody else uses: Docker's two questions."""
    status = devices.pool.status()
    if status.data_used:
        what = "already has used data blocks"
    elif status.transaction_id:
        what = f"has a non-zero transaction id ({status.transaction_id})"
    else:
        return
    raise Conflict(
        f"unable to take ownership of thin pool {devices.pool.name}: it {what}, of which this data root has no records",
        hint="another store uses it, or did: give an empty pool, or the data root that belongs to it",
    )


def _make_filesystem(fstype: str, node: Path, extra: tuple[str, ...]) -> None:
    _LOG.info("making a file system of type %s on the base device %s", fstype, node)
    program = programs.require(f"mkfs.{fstype}")
    if fstype == "xfs":
        programs.run((program, *extra, node), timeout=_MKFS_S)
        return
    quick = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
    programs.run((program, "-E", quick, *extra, node), timeout=_MKFS_S)
    # No checks by count or age, which would come due on every snapshot at once.
    programs.run((programs.require("tune2fs"), "-c", "-1", "-i", "0", node), timeout=_MKFS_S)
