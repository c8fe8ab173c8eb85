"""Docker's records of a device set as values: bytes in, bytes out, no I/O.

One JSON object per file, without a newline, keys in Docker's order. Source: moby daemon/graphdriver/devmapper
deviceset.go (devInfo, transaction, DeviceSet), as measured with dockerd 20.10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lamina.errors import CorruptRecord, InvalidArgument
from lamina.ids import CacheId
from lamina.jsonvalue import JsonObject, boolean, go_json, integer, parse_object, text

BASE = ""
"""The name of the base device, of which every layer without parent is a snapshot. Its file is called `base`."""

MOST_DEVICE_ID = (1 << 24) - 1
_LONGEST = 1 << 16

# Names that dockerd or we use ourselves, and what is made of a layer of such a name; real layers have 64 hex digits.
_TAKEN = re.compile(r"(?:base|pool|deviceset-metadata|transaction-metadata|.*\.migrated)_*")


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """`metadata/<name>`: one thin device. `initialized` is only ever true for the base, when its file system is made.

    `deleted`: its removal was asked for while it was busy, and is tried again.
    """

    device_id: int
    size_bytes: int
    transaction_id: int
    initialized: bool = False
    deleted: bool = False

    def encode(self) -> bytes:
        return go_json(
            {
                "device_id": self.device_id,
                "size": self.size_bytes,
                "transaction_id": self.transaction_id,
                "initialized": self.initialized,
                "deleted": self.deleted,
            }
        )


@dataclass(frozen=True, slots=True)
class Transaction:
    """`metadata/transaction-metadata`: the last change that was begun. It is finished when the pool has its number."""

    number: int
    name: str
    device_id: int

    def encode(self) -> bytes:
        return go_json({"open_transaction_id": self.number, "device_hash": self.name, "device_id": self.device_id})


@dataclass(frozen=True, slots=True)
class DeviceSet:
    """`metadata/deviceset-metadata`. `next_device_id` is old after a crash: the device records tell what is taken."""

    next_device_id: int = 0
    base_uuid: str = ""
    base_fstype: str = ""

    def encode(self) -> bytes:
        return go_json(
            {
                "next_device_id": self.next_device_id,
                "BaseDeviceUUID": self.base_uuid,
                "BaseDeviceFilesystem": self.base_fstype,
            }
        )


def decode_device(raw: bytes, what: str) -> DeviceRecord:
    """Raises CorruptRecord; `what` names the file."""
    found = _object(raw, what, ("device_id", "size"))
    try:
        record = DeviceRecord(
            device_id=integer(found, "device_id"),
            size_bytes=integer(found, "size"),
            transaction_id=integer(found, "transaction_id"),
            initialized=boolean(found, "initialized"),
            deleted=boolean(found, "deleted"),
        )
    except InvalidArgument as error:
        raise CorruptRecord(f"{what} is damaged: {error}") from error
    if not 0 <= record.device_id <= MOST_DEVICE_ID or record.size_bytes <= 0 or record.transaction_id < 0:
        raise CorruptRecord(f"{what} is damaged: a number in it is out of range")
    return record


def decode_transaction(raw: bytes, what: str) -> Transaction:
    """Raises CorruptRecord."""
    found = _object(raw, what, ("open_transaction_id", "device_id"))
    try:
        return Transaction(
            integer(found, "open_transaction_id"), text(found, "device_hash"), integer(found, "device_id")
        )
    except InvalidArgument as error:
        raise CorruptRecord(f"{what} is damaged: {error}") from error


def decode_device_set(raw: bytes, what: str) -> DeviceSet:
    """Raises CorruptRecord."""
    found = _object(raw, what, ())
    try:
        return DeviceSet(
            integer(found, "next_device_id") & MOST_DEVICE_ID,
            text(found, "BaseDeviceUUID"),
            text(found, "BaseDeviceFilesystem"),
        )
    except InvalidArgument as error:
        raise CorruptRecord(f"{what} is damaged: {error}") from error


def device_name(cache_id: CacheId) -> str:
    """What a layer is called in Docker's records and device names: its id, unless that is taken."""
    return f"{cache_id}_" if _TAKEN.fullmatch(cache_id) else cache_id


def layer_of(name: str) -> CacheId:
    """The layer that `device_name` made this name for."""
    return CacheId(name[:-1] if name.endswith("_") and _TAKEN.fullmatch(name) else name)


def _object(raw: bytes, what: str, needed: tuple[str, ...]) -> JsonObject:
    if not raw.strip(b"\0 \n"):
        raise CorruptRecord(f"{what} is damaged: it is empty")
    try:
        found = parse_object(raw, what="it", max_bytes=_LONGEST)
    except InvalidArgument as error:
        raise CorruptRecord(f"{what} is damaged: {error}") from error
    missing = [key for key in needed if key not in found]
    if missing:
        raise CorruptRecord(f"{what} is damaged: it has no {missing[0]}")
    return found
