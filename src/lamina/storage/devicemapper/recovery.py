"""What is left of a daemon, or a machine, that was stopped in the middle of a change (blocking).

The pool's transaction number P and the last transaction begun (number O, device d, name n) decide:

- O = P + 1: it was not finished. Its device is deleted from the pool (it may not be there) and its record removed, for
  a creation as for a deletion. So does dockerd.
- O = P: finished, but its record may be wrong where a power cut took the last write to the directory: a deletion's may
  still be there (its device is not), a creation's may be missing (its device is there, and nobody was told of it).
- anything else: somebody else has changed the pool, or one of the two is an old copy. Every device is looked for.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from lamina.errors import CorruptRecord
from lamina.kernel.devicemapper import DeviceMapper
from lamina.storage.devicemapper.devices import Devices
from lamina.storage.devicemapper.records import BASE, Transaction

_LOG = logging.getLogger(__name__)


def settle(devices: Devices) -> list[str]:
    """Bring records and pool together; gives what is lost or strange, for the log.

    Before: the pool is known to be the records' own.
    """
    warnings = [f"{problem}: the layer counts as absent" for problem in devices.damaged.values()]
    try:
        last = devices.metadata.transaction()
    except CorruptRecord as error:
        warnings.append(f"{error}: it is not known whether the last change was finished")
        return warnings + _look_for_all(devices)
    if last is None:
        return warnings + (_look_for_all(devices) if len(devices.records) > 1 else [])
    if last.number == devices.transaction_id:
        _mend_last(devices, last)
    elif last.number == devices.transaction_id + 1:
        _roll_back(devices, last)
    else:
        warnings.append(
            f"the thin pool {devices.pool.name} is at transaction {devices.transaction_id}, the records at "
            f"{last.number}: somebody else changed it, or one of the two is an old copy"
        )
        warnings += _look_for_all(devices)
    return warnings


def stop_strays(devices: Devices, mapper: DeviceMapper) -> None:
    """Devices that a killed daemon left active or suspended; what is mounted stays, its container may run."""
    for kernel_name in mapper.names():
        if not kernel_name.startswith(f"{devices.prefix}-") or kernel_name == devices.pool.name:
            continue
        device = mapper.find(kernel_name)
        if device is None:
            continue
        with suppress(OSError):  # it goes by itself meanwhile
            if device.is_suspended and device.is_live:
                mapper.resume(kernel_name)
            if not device.users:
                mapper.remove(kernel_name, deferred=False)


def _roll_back(devices: Devices, last: Transaction) -> None:
    _LOG.info("rolling back transaction %d of the thin pool: %s", last.number, last.name or "base")
    record = devices.records.get(last.name)
    if record is not None and record.device_id != last.device_id:
        return  # never written by anybody
    with suppress(OSError):  # busy: a deletion of a device that is still mounted
        devices.pool.delete(last.device_id)
        devices.forget(last.name)
        devices.metadata.forget_transaction()


def _mend_last(devices: Devices, last: Transaction) -> None:
    record = devices.records.get(last.name)
    if record is None:
        taken = any(one.device_id == last.device_id for one in devices.records.values())
        if last.name not in devices.damaged and not taken:
            with suppress(OSError):
                devices.pool.delete(last.device_id)
        return
    if record.transaction_id != last.number and not _is_there(devices, last.name):
        devices.forget(last.name)


def _look_for_all(devices: Devices) -> list[str]:
    """Name every layer whose device the pool does not have."""
    lost = [name for name in devices.records if not _is_there(devices, name)]
    for name in lost:
        record = devices.records[name]
        devices.damaged[name] = (
            f"layer {name or 'base'} is lost: the thin pool {devices.pool.name} has no device {record.device_id}"
        )
        if name != BASE:
            del devices.records[name]
    return [f"{devices.damaged[name]}: it counts as absent" for name in lost]


def _is_there(devices: Devices, name: str) -> bool:
    if devices.find(name) is not None:
        return True
    return devices.pool.holds(devices.records[name].device_id, f"{devices.prefix}-looked-for")
