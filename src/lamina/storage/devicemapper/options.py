"""`--storage-opt dm.…` as Docker named the options (no I/O).

Source: moby daemon/graphdriver/devmapper/deviceset.go NewDeviceSet; dockerd(8), "devicemapper options".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lamina.errors import InvalidArgument
from lamina.kernel.dm_ioctl import SECTOR

_GIB = 1 << 30
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
# Documentation/admin-guide/device-mapper/thin-provisioning.rst: 64 KiB to 1 GiB, a multiple of 64 KiB
_BLOCK_STEP, _MOST_BLOCK = 64 << 10, 1 << 30


@dataclass(frozen=True, slots=True)
class DirectLvm:
    """What to make a pool of with LVM, once. Percentages of the volume group."""

    device: str = ""
    pool_percent: int = 0
    metadata_percent: int = 0
    extend_percent: int = 0
    extend_threshold: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """Every option with Docker's default. An empty text means: not given. Sizes are bytes.

    `discards` None means: where blocks come from loop files, which would never shrink otherwise. `override_udev_check`
    changes nothing: no step here waits for udev.
    """

    base_size: int | None = None
    loop_data_size: int | None = None
    loop_metadata_size: int | None = None
    fstype: str = ""
    mkfs_args: tuple[str, ...] = ()
    mount_options: str = ""
    data_device: str = ""
    metadata_device: str = ""
    thin_pool: str = ""
    discards: bool | None = None
    block_sectors: int = 128
    deferred_removal: bool = True
    deferred_deletion: bool = True
    min_free_percent: int = 10
    xfs_nospace_retries: str = ""
    override_udev_check: bool = False
    lvm: DirectLvm = DirectLvm()
    lvm_force: bool = False

    @property
    def discards_blocks(self) -> bool:
        if self.discards is not None:
            return self.discards
        return not self.data_device and not self.thin_pool and not self.lvm.device


DEFAULT_BASE_SIZE = 10 * _GIB
DEFAULT_LOOP_DATA_SIZE = 100 * _GIB
DEFAULT_LOOP_METADATA_SIZE = 2 * _GIB


def parse_options(given: Mapping[str, str]) -> Options:
    """Check and combine `key=value` pairs.

    Raises:
        InvalidArgument: an unknown option, a value that makes no sense, or two that exclude each other.
    """
    options = Options()
    for key, value in given.items():
        setter = _SETTERS.get(key.lower())
        if setter is None:
            raise InvalidArgument(
                f"unknown option {key} of storage driver devicemapper", hint=f"known are: {', '.join(_SETTERS)}"
            )
        options = setter(options, key.lower(), value.strip())
    if options.deferred_deletion and not options.deferred_removal:
        if "dm.use_deferred_deletion" in given:
            raise InvalidArgument(
                "dm.use_deferred_deletion needs deferred removal", hint="add --storage-opt dm.use_deferred_removal=true"
            )
        options = replace(options, deferred_deletion=False)
    _check_lvm(options)
    return options


def parse_size(key: str, value: str) -> int:
    """Bytes of `10G`, `1.5g`, `100MB`, `512MiB`: units of 1024. Source: docker/go-units RAMInBytes."""
    found = _SIZE.fullmatch(value)
    if found is None:
        raise InvalidArgument(f"{key}: invalid size: '{value[:80]}'", hint="write it as 10G, 512M or a number of bytes")
    size = int(float(found[1]) * (1 << 10 * ("kmgtp".index(found[2].lower()) + 1 if found[2] else 0)))
    if size <= 0:
        raise InvalidArgument(f"{key}: a size must be more than 0")
    return size - size % SECTOR


def _size(field: str) -> Callable[[Options, str, str], Options]:
    return lambda options, key, value: _with(options, **{field: parse_size(key, value)})


def _switch(field: str) -> Callable[[Options, str, str], Options]:
    def setter(options: Options, key: str, value: str) -> Options:
        if value not in _TRUE | _FALSE:
            raise InvalidArgument(f"{key}: {value[:80]!r} is neither true nor false")
        return _with(options, **{field: value in _TRUE})

    return setter


def _word(field: str) -> Callable[[Options, str, str], Options]:
    return lambda options, _key, value: _with(options, **{field: value})


def _filesystem(options: Options, key: str, value: str) -> Options:
    if value not in {"ext4", "xfs"}:
        raise InvalidArgument(f"{key}: unsupported file system {value[:80]!r}", hint="choose ext4 or xfs")
    return replace(options, fstype=value)


def _mkfs_argument(options: Options, key: str, value: str) -> Options:
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise InvalidArgument(f"{key}: {value[:80]!r} cannot be taken apart: {error}") from error
    return replace(options, mkfs_args=(*options.mkfs_args, *words))


def _block_size(options: Options, key: str, value: str) -> Options:
    size = parse_size(key, value)
    if size % _BLOCK_STEP or not _BLOCK_STEP <= size <= _MOST_BLOCK:
        raise InvalidArgument(f"{key}: the kernel takes 64K to 1G, in steps of 64K; not {value}")
    return replace(options, block_sectors=size // SECTOR)


def _free_space(options: Options, key: str, value: str) -> Options:
    if not value.endswith("%"):
        raise InvalidArgument(f"{key} requires a % suffix", hint=f"--storage-opt {key}=10%")
    percent = _number(key, value)
    if percent >= 100:
        raise InvalidArgument(f"{key}: invalid value {value}: it must be less than 100%")
    return replace(options, min_free_percent=percent)


def _retries(options: Options, key: str, value: str) -> Options:
    return replace(options, xfs_nospace_retries=str(_number(key, value)))


def _log_level(options: Options, key: str, value: str) -> Options:
    """Accepted for the sake of Docker's configuration; there is no libdevmapper here that could log."""
    if not 2 <= _number(key, value) <= 7:
        raise InvalidArgument(f"{key} must be in range [2,7]")
    return options


def _lvm_word(options: Options, _key: str, value: str) -> Options:
    return replace(options, lvm=replace(options.lvm, device=value))


def _lvm_percent(field: str, most: int) -> Callable[[Options, str, str], Options]:
    def setter(options: Options, key: str, value: str) -> Options:
        percent = _number(key, value)
        if not 0 < percent <= most:
            raise InvalidArgument(f"{key} must be greater than 0 and at most {most}")
        changed: dict[str, Any] = {field: percent}
        return replace(options, lvm=replace(options.lvm, **changed))

    return setter


def _number(key: str, value: str) -> int:
    text = value.removesuffix("%")
    if not text.isascii() or not text.isdigit():
        raise InvalidArgument(f"{key}: {value[:80]!r} is no whole number")
    return int(text)


def _with(options: Options, **changed: Any) -> Options:  # noqa: ANN401 - dataclasses.replace takes any field
    return replace(options, **changed)


def _check_lvm(options: Options) -> None:
    lvm = options.lvm
    if lvm == DirectLvm():
        return
    if not lvm.device:
        raise InvalidArgument("dm.thinp_* options need a device", hint="add --storage-opt dm.directlvm_device=/dev/…")
    if options.thin_pool:
        raise InvalidArgument("dm.directlvm_device and dm.thinpooldev exclude each other")
    if lvm.pool_percent + lvm.metadata_percent > 100:
        raise InvalidArgument("dm.thinp_percent and dm.thinp_metapercent together exceed 100")


_SETTERS: dict[str, Callable[[Options, str, str], Options]] = {
    "dm.basesize": _size("base_size"),
    "dm.loopdatasize": _size("loop_data_size"),
    "dm.loopmetadatasize": _size("loop_metadata_size"),
    "dm.fs": _filesystem,
    "dm.mkfsarg": _mkfs_argument,
    "dm.mountopt": _word("mount_options"),
    "dm.datadev": _word("data_device"),
    "dm.metadatadev": _word("metadata_device"),
    "dm.thinpooldev": _word("thin_pool"),
    "dm.blkdiscard": _switch("discards"),
    "dm.blocksize": _block_size,
    "dm.override_udev_sync_check": _switch("override_udev_check"),
    "dm.use_deferred_removal": _switch("deferred_removal"),
    "dm.use_deferred_deletion": _switch("deferred_deletion"),
    "dm.min_free_space": _free_space,
    "dm.xfs_nospace_max_retries": _retries,
    "dm.directlvm_device": _lvm_word,
    "dm.directlvm_device_force": _switch("lvm_force"),
    "dm.thinp_percent": _lvm_percent("pool_percent", 99),
    "dm.thinp_metapercent": _lvm_percent("metadata_percent", 99),
    "dm.thinp_autoextend_percent": _lvm_percent("extend_percent", 100),
    "dm.thinp_autoextend_threshold": _lvm_percent("extend_threshold", 100),
    "dm.libdm_log_level": _log_level,
}
