"""The directory with Docker's records of a device set (blocking).

What must be on disk before the pool changes (the open transaction) is written durably. A device's record need not be:
it is written before the pool's transaction number, and `Recovery` knows what a missing one means.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from lamina.errors import CorruptRecord
from lamina.kernel.durable import fsync_dir, make_dirs, write_file_ordered
from lamina.rootfs.remove import remove_tree
from lamina.storage.devicemapper.records import (
    BASE,
    DeviceRecord,
    DeviceSet,
    Transaction,
    decode_device,
    decode_device_set,
    decode_transaction,
)

_SET, _TRANSACTION, _BASE_FILE = "deviceset-metadata", "transaction-metadata", "base"


class Metadata:
    """`devicemapper/metadata`. Not thread-safe: the device set's lock is held."""

    def __init__(self, directory: Path) -> None:
        """Make the directory when it is new."""
        make_dirs(directory, 0o700)
        self._directory = directory

    def path(self, name: str) -> Path:
        """The file of a device's record."""
        return self._directory / (name or _BASE_FILE)

    def load(self) -> tuple[dict[str, DeviceRecord], dict[str, str]]:
        """Every device's record by name, and what is wrong with those that cannot be read.

        Two records of one device are both wrong: nobody knows whose it is.
        """
        found: dict[str, DeviceRecord] = {}
        damaged: dict[str, str] = {}
        with os.scandir(self._directory) as listing:
            entries = list(listing)
        for entry in entries:
            if entry.name.startswith(".tmp") and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)  # of a write that a crash cut off
            if entry.name.startswith(".") or entry.name.endswith(".migrated") or entry.name in {_SET, _TRANSACTION}:
                continue
            name = BASE if entry.name == _BASE_FILE else entry.name
            try:
                found[name] = decode_device(_read(Path(entry.path)), entry.path)
            except CorruptRecord as error:
                damaged[name] = str(error)
        for name, other in _doubles(found):
            damaged[name] = f"{self.path(name)} names the same device as {self.path(other)}"
        for name in damaged:
            found.pop(name, None)
        return found, damaged

    def write_device(self, name: str, record: DeviceRecord) -> None:
        """In order, but not waited for: it reaches the disk no later than what is written durably after it."""
        write_file_ordered(self.path(name), record.encode())

    def sync(self) -> None:
        """Put all that was written here on disk."""
        fsync_dir(self._directory)

    def forget_device(self, name: str) -> None:
        """Again is fine, and so is what should never have been there: a directory."""
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            return
        except IsADirectoryError:
            remove_tree(self.path(name))

    def transaction(self) -> Transaction | None:
        """The last one begun; None when there is no file. Raises CorruptRecord."""
        path = self._directory / _TRANSACTION
        return decode_transaction(_read(path), os.fspath(path)) if os.path.lexists(path) else None

    def write_transaction(self, transaction: Transaction) -> None:
        """On disk when this returns, with all that was written here before."""
        write_file_ordered(self._directory / _TRANSACTION, transaction.encode())
        fsync_dir(self._directory)

    def forget_transaction(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._directory / _TRANSACTION)

    def device_set(self) -> DeviceSet | None:
        """None when there is no file. Raises CorruptRecord."""
        path = self._directory / _SET
        return decode_device_set(_read(path), os.fspath(path)) if os.path.lexists(path) else None

    def write_device_set(self, device_set: DeviceSet) -> None:
        """On disk when this returns."""
        write_file_ordered(self._directory / _SET, device_set.encode())
        fsync_dir(self._directory)


def _read(path: Path) -> bytes:
    """The content of a record. Raises CorruptRecord for anything but a readable regular file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CorruptRecord(f"{path} cannot be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CorruptRecord(f"{path} is no regular file")
        return os.read(fd, 1 << 17)
    except OSError as error:
        raise CorruptRecord(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def _doubles(records: dict[str, DeviceRecord]) -> list[tuple[str, str]]:
    """Each name whose device another one has too, with that other one."""
    by_device: dict[int, list[str]] = {}
    for name, record in records.items():
        by_device.setdefault(record.device_id, []).append(name)
    return [
        (name, next(other for other in names if other != name))
        for names in by_device.values()
        if len(names) > 1
        for name in names
    ]
