"""Which storage driver a data root gets, as Docker chooses (blocking).

What a migration put down wins, then state of an earlier run, else the layers of that run would seem lost. Without any,
the first driver that works here. To add a driver: one row in `_DRIVERS`.
Source: moby daemon/graphdriver/driver.go, New.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import Conflict, CorruptRecord, InvalidArgument, StorageFull, Unsupported
from lamina.kernel import durable
from lamina.storage.choice import read_choice
from lamina.storage.driver import StorageDriver


@dataclass(frozen=True, slots=True)
class DriverReport:
    """Whether one driver can work on a data root; if not, why and what would help."""

    name: str
    usable: bool
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Row:
    """One known driver. `open` is None until it is built; `leaves_state` is false where a used home proves nothing."""

    name: str
    probe: Callable[[Path], str]
    open: Callable[[Path, Mapping[str, str]], StorageDriver] | None = None
    leaves_state: bool = True
    chosen_unasked: bool = True


# Only the driver that is used is loaded, so that the daemon starts quickly and stays small.


def _overlay2(root: Path, options: Mapping[str, str]) -> StorageDriver:
    from lamina.storage.overlay2.driver import Overlay2

    return Overlay2(root, options)


def _overlay2_fits(directory: Path) -> str:
    from lamina.storage.overlay2.probe import probe

    features = probe(directory)
    if features.native_diff:
        return f"works on {features.backing}"
    return f"works on {features.backing}, with slow diffs: {features.native_diff_flaw}"


def _zfs(root: Path, options: Mapping[str, str]) -> StorageDriver:
    from lamina.storage.zfs.driver import Zfs

    return Zfs(root, options)


def _zfs_fits(directory: Path) -> str:
    from lamina.storage.zfs.probe import probe

    return f"works on the dataset {probe(directory)}"


def _aufs(root: Path, options: Mapping[str, str]) -> StorageDriver:
    from lamina.storage.aufs.driver import Aufs

    return Aufs(root, options)


def _aufs_fits(directory: Path) -> str:
    from lamina.storage.aufs.probe import probe

    features = probe(directory)
    return f"works on {features.backing}, by {features.union}"


def _vfs(root: Path, options: Mapping[str, str]) -> StorageDriver:
    from lamina.storage.vfs.driver import Vfs

    return Vfs(root, options)


def _vfs_fits(_directory: Path) -> str:
    return "works everywhere; every layer is a full copy"


def _btrfs(root: Path, options: Mapping[str, str]) -> StorageDriver:
    from lamina.storage.btrfs.driver import Btrfs

    return Btrfs(root, options)


def _btrfs_fits(directory: Path) -> str:
    from lamina.storage.btrfs.probe import probe

    probe(directory)
    return "works, with a subvolume for every layer"


def _devicemapper(root: Path, options: Mapping[str, str]) -> StorageDriver:
    from lamina.storage.devicemapper.driver import DeviceMapperDriver

    return DeviceMapperDriver(root, options)


def _devicemapper_fits(_directory: Path) -> str:
    from lamina.storage.devicemapper.probe import probe

    return probe()


def _not_built(_directory: Path) -> str:
    raise Unsupported("not built yet", hint="use overlay2, or vfs where the file system is no good for overlay2")


_DRIVERS = (
    _Row("overlay2", _overlay2_fits, _overlay2),
    _Row("fuse-overlayfs", _not_built, chosen_unasked=False),
    _Row("btrfs", _btrfs_fits, _btrfs),
    _Row("zfs", _zfs_fits, _zfs),
    _Row("aufs", _aufs_fits, _aufs, chosen_unasked=False),
    _Row("overlay", _not_built, chosen_unasked=False),
    _Row("devicemapper", _devicemapper_fits, _devicemapper, chosen_unasked=False),
    _Row("vfs", _vfs_fits, _vfs, leaves_state=False),
)
_PREFIXES = {"devicemapper": ("dm.",), "vfs": ("vfs.", "size")}
_REPORTED = ("overlay2", "vfs", "aufs", "btrfs", "devicemapper", "zfs")


def choose_driver(root: Path, requested: str | None, options: Mapping[str, str]) -> StorageDriver:
    """Open the storage driver for the data root: the requested one, else the prior one, else the first that works.

    `options` are `--storage-opt` pairs; those with another driver's prefix are refused.

    Raises:
        InvalidArgument: unknown driver or option.
        Conflict: several drivers have left state and none was requested, or the requested one is that of a store that
            a migration keeps aside.
        Unsupported: the driver does not work here; the hint says what would help.
    """
    durable.make_dirs(root, 0o710)
    moved_to = _moved_to(root, requested)
    if requested or moved_to:
        return open_driver(requested or moved_to, root, options)
    prior = prior_drivers(root)
    if len(prior) > 1:
        raise Conflict(
            f"{root} contains several valid graphdrivers: {', '.join(prior)}",
            hint="clean up, or choose one explicitly: --storage-driver NAME",
        )
    if prior:
        row = _row(prior[0])
        if row.open is None:
            raise Unsupported(
                f"{root} was used with the storage driver {row.name}, which is not built yet",
                hint="use another --data-root, or start with --storage-driver to leave those layers aside",
            )
        return _open(row, root, options)
    return _first_that_works(root, options)


def open_driver(name: str, root: Path, options: Mapping[str, str]) -> StorageDriver:
    """Open this driver on the data root, whatever else lies there; for who works on two stores at once.

    Raises:
        InvalidArgument: unknown driver or option.
        Unsupported: the driver does not work here; the hint says what would help.
    """
    return _open(_row(name), root, options)


def _moved_to(root: Path, requested: str | None) -> str:
    """The driver that a migration has put down, "" for none."""
    try:
        choice = read_choice(root)
    except CorruptRecord:
        if requested:
            return ""
        raise
    if choice is None:
        return ""
    if requested and requested == choice.aside:
        raise Conflict(
            f"{root} has its images and containers with the storage driver {choice.driver}; what it has for "
            f"{requested} belongs to a migration that is not ended",
            hint=f"leave --storage-driver out, or end the migration first: lamina system migrate --data-root {root} "
            "--confirm (or --rollback)",
        )
    return choice.driver


def options_of(driver: str, options: Mapping[str, str] | None) -> dict[str, str]:
    """Those of the pairs that are this driver's, by their prefix."""
    prefixes = _PREFIXES.get(driver, (f"{driver}.",))
    return {key: value for key, value in (options or {}).items() if key.startswith(prefixes)}


def prior_drivers(root: Path) -> list[str]:
    """The drivers with state below the root, in the order of preference. vfs never counts; an empty home neither."""
    return [row.name for row in _DRIVERS if row.leaves_state and _has_state(root / row.name)]


def survey(root: Path) -> list[DriverReport]:
    """Whether each driver can work on the data root, preferred first. Takes milliseconds and leaves nothing behind."""
    directory = root
    while not directory.is_dir():
        directory = directory.parent  # a root that is yet to be made will be on its parent's file system
    reports: list[DriverReport] = []
    for name in _REPORTED:
        row = _row(name)
        try:
            reports.append(DriverReport(name, usable=True, reason=row.probe(directory), remedy=""))
        except Unsupported as error:
            reports.append(DriverReport(name, usable=False, reason=error.message, remedy=error.hint))
        except (OSError, StorageFull) as error:
            reports.append(DriverReport(name, usable=False, reason=f"could not be tried: {error}", remedy=""))
    return reports


def _first_that_works(root: Path, options: Mapping[str, str]) -> StorageDriver:
    reasons: list[str] = []
    for row in _DRIVERS:
        if row.open is None or not row.chosen_unasked:
            continue
        try:
            return row.open(root, options)
        except Unsupported as error:
            reasons.append(f"{row.name}: {error.message}")
    raise Unsupported(f"no storage driver works on {root}: {'; '.join(reasons)}")


def _open(row: _Row, root: Path, options: Mapping[str, str]) -> StorageDriver:
    if row.open is None:
        raise Unsupported(
            f"storage driver {row.name} is not built yet", hint="use --storage-driver overlay2, or leave the option out"
        )
    return row.open(root, options)


def _row(name: str) -> _Row:
    for row in _DRIVERS:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in _DRIVERS if row.open is not None)
    raise InvalidArgument(f"unknown storage driver {name!r}", hint=f"choose one of: {known}")


def _has_state(home: Path) -> bool:
    """An empty directory is no state; anything else under the name is."""
    try:
        return bool(os.listdir(home))
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True
