"""What /dev/zfs does, through libzfs_core: one call is one transaction, without a process (blocking).

libzfs_core is ZFS' stable interface; the numbers behind it change between versions. Lists go in and come out packed, so
that `kernel/nvlist.py` is all there is to know about them. Every function raises OSError with the errno of the kernel
and the dataset it is about, and is safe in threads; ctypes lets other threads run meanwhile.

Source: OpenZFS include/libzfs_core.h, lib/libzfs_core/libzfs_core.c.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import Unsupported
from lamina.kernel.nvlist import NvList, NvValue, decode, encode

DEVICE = Path("/dev/zfs")

_CORE_NAMES = ("libzfs_core.so.3", "libzfs_core.so.1")
_PAIR_NAMES = ("libnvpair.so.3", "libnvpair.so.1")
_FILE_SYSTEM = 2  # LZC_DATSET_TYPE_ZFS
_XDR = 1  # NV_ENCODE_XDR
_MOST_INSTRUCTIONS = 100_000_000
_MOST_MEMORY = 100 << 20
_SMALL_MEMORY = 10 << 20

_opening = threading.Lock()


def require() -> None:
    """Raises Unsupported, with the remedy, where ZFS' kernel part or library is not there."""
    if not DEVICE.exists():
        raise Unsupported(
            f"the kernel part of zfs is not loaded ({DEVICE} is missing)",
            hint="apt-get install zfsutils-linux zfs-dkms (in Debian's contrib), then modprobe zfs",
        )
    _session()


def exists(dataset: str) -> bool:
    """Is there a file system, volume or snapshot of this name?"""
    return bool(_session().core.lzc_exists(_name(dataset)))


def create(dataset: str, properties: Mapping[str, NvValue]) -> None:
    """Make an empty file system. EEXIST: it is there. ENOENT: its parent is not. ENOSPC, EDQUOT: no room."""
    session = _session()
    with session.packed(properties) as given:
        _check(session.core.lzc_create(_name(dataset), _FILE_SYSTEM, given, None, 0), dataset)


def clone(dataset: str, snapshot: str, properties: Mapping[str, NvValue]) -> None:
    """Make a file system that begins as `snapshot`. ENOENT: no such snapshot. Else as `create`."""
    session = _session()
    with session.packed(properties) as given:
        _check(session.core.lzc_clone(_name(dataset), _name(snapshot), given), dataset)


def snapshot(name: str, properties: Mapping[str, NvValue]) -> None:
    """Keep a file system as it is now under `dataset@snapshot`. EEXIST: the name is taken.

    Of `properties` only those of users' own are taken (`vendor:name`).
    """
    session = _session()
    told = ctypes.c_void_p()
    with session.packed({name: None}) as names, session.packed(properties) as given:
        failed = session.core.lzc_snapshot(names, given, ctypes.byref(told))
    session.free(told)
    _check(failed, name)


def destroy(dataset: str) -> None:
    """Remove one file system or snapshot. EBUSY: mounted or has snapshots. EEXIST: has children. ENOENT: not there."""
    _check(_session().core.lzc_destroy(_name(dataset)), dataset)


def destroy_snapshots(names: Iterable[str], *, deferred: bool) -> dict[str, int]:
    """Remove snapshots of one pool in one transaction; those that are not there are fine.

    With `deferred` a snapshot that has clones or holds goes by itself when the last of them goes. Returns the errno of
    each that could not be removed; if there is one, none was.
    """
    session = _session()
    told = ctypes.c_void_p()
    given: NvList = dict.fromkeys(names)
    if not given:
        return {}
    with session.packed(given) as packed:
        failed = session.core.lzc_destroy_snaps(packed, int(deferred), ctypes.byref(told))
    errors = session.unpacked(told) if told.value else {}
    session.free(told)
    found = {name: number for name, number in errors.items() if isinstance(number, int)}
    if failed and not found:
        _check(failed, next(iter(given)))
    return found


def rename(dataset: str, target: str) -> None:
    """Rename a file system; what is mounted stays mounted, clones and snapshots go along."""
    _check(_session().core.lzc_rename(_name(dataset), _name(target)), dataset)


def sync(pool: str) -> None:
    """Put everything that was written to the pool until now on its disks."""
    session = _session()
    told = ctypes.c_void_p()
    with session.packed({"force": False}) as given:
        failed = session.core.lzc_sync(_name(pool), given, ctypes.byref(told))
    session.free(told)
    _check(failed, pool)


def ask(pool: str, program: str, arguments: Mapping[str, NvValue], *, large: bool = False) -> NvValue:
    """Run a channel program that only reads, and give what it returns: many questions in one call, no transaction.

    `large` allows for answers of up to 100 MB instead of 10. Source: zfs-program(8).
    """
    return _run(pool, program, arguments, memory=_MOST_MEMORY if large else _SMALL_MEMORY, writes=False)


def change(pool: str, program: str, arguments: Mapping[str, NvValue]) -> NvValue:
    """Run a channel program that changes things: all that it does reaches the disk together."""
    return _run(pool, program, arguments, memory=_SMALL_MEMORY, writes=True)


def _run(pool: str, program: str, arguments: Mapping[str, NvValue], *, memory: int, writes: bool) -> NvValue:
    session = _session()
    told = ctypes.c_void_p()
    call = session.core.lzc_channel_program if writes else session.core.lzc_channel_program_nosync
    with session.packed(arguments) as given:
        failed = call(_name(pool), program.encode("ascii"), _MOST_INSTRUCTIONS, memory, given, ctypes.byref(told))
    answer = session.unpacked(told) if told.value else {}
    session.free(told)
    if failed:
        raise OSError(failed, str(answer.get("error") or os.strerror(failed)), pool)
    return answer.get("return")


class _Packed:
    """A list in the library's own form, for the length of a `with` block."""

    def __init__(self, session: _Session, values: Mapping[str, NvValue]) -> None:
        self._session = session
        self._values = values
        self._list = ctypes.c_void_p()

    def __enter__(self) -> ctypes.c_void_p:
        data = encode(self._values)
        _check(self._session.pairs.nvlist_unpack(data, len(data), ctypes.byref(self._list), 0), "")
        return self._list

    def __exit__(self, *_: object) -> None:
        self._session.free(self._list)


@dataclass(frozen=True, slots=True)
class _Session:
    """The two libraries; the first holds /dev/zfs open."""

    core: ctypes.CDLL
    pairs: ctypes.CDLL

    def packed(self, values: Mapping[str, NvValue]) -> _Packed:
        return _Packed(self, values)

    def unpacked(self, made: ctypes.c_void_p) -> NvList:
        buffer, size = ctypes.c_void_p(), ctypes.c_size_t()
        _check(self.pairs.nvlist_pack(made, ctypes.byref(buffer), ctypes.byref(size), _XDR, 0), "")
        try:
            return decode(ctypes.string_at(buffer, size.value))
        finally:
            _libc().free(buffer)

    def free(self, made: ctypes.c_void_p) -> None:
        if made.value:
            self.pairs.nvlist_free(made)
            made.value = None


def _session() -> _Session:
    with _opening:
        return _open()


@functools.cache
def _open() -> _Session:
    """Load the libraries and open the device; a failure is not remembered, so that a later modprobe helps."""
    core, pairs = _library(_CORE_NAMES), _library(_PAIR_NAMES)
    text, list_in, list_out = ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    core.lzc_exists.argtypes = (text,)
    core.lzc_create.argtypes = (text, ctypes.c_int, list_in, ctypes.c_void_p, ctypes.c_uint)
    core.lzc_clone.argtypes = (text, text, list_in)
    core.lzc_snapshot.argtypes = (list_in, list_in, list_out)
    core.lzc_destroy.argtypes = (text,)
    core.lzc_destroy_snaps.argtypes = (list_in, ctypes.c_int, list_out)
    core.lzc_rename.argtypes = (text, text)
    core.lzc_sync.argtypes = (text, list_in, list_out)
    for program in (core.lzc_channel_program, core.lzc_channel_program_nosync):
        program.argtypes = (text, text, ctypes.c_uint64, ctypes.c_uint64, list_in, list_out)
    pairs.nvlist_unpack.argtypes = (text, ctypes.c_size_t, list_out, ctypes.c_int)
    pairs.nvlist_pack.argtypes = (list_in, list_out, ctypes.POINTER(ctypes.c_size_t), ctypes.c_int, ctypes.c_int)
    pairs.nvlist_free.argtypes = (ctypes.c_void_p,)
    pairs.nvlist_free.restype = None
    failed = core.libzfs_core_init()
    if failed:
        raise Unsupported(
            f"{DEVICE} cannot be opened: {os.strerror(failed)}",
            hint="modprobe zfs, and run as root" if failed != errno.ENOENT else "modprobe zfs",
        )
    return _Session(core, pairs)


def _library(names: Iterable[str]) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
    raise Unsupported(
        f"the library {next(iter(names))} is not installed: it comes with the package zfsutils-linux",
        hint="apt-get install zfsutils-linux (in Debian's contrib)",
    )


@functools.cache
def _libc() -> ctypes.CDLL:
    found = ctypes.CDLL(None)
    found.free.argtypes = (ctypes.c_void_p,)
    found.free.restype = None
    return found


def _name(dataset: str) -> bytes:
    return os.fsencode(dataset)


def _check(failed: int, dataset: str) -> None:
    """These functions return the errno itself, 0 for success."""
    if failed:
        raise OSError(failed, os.strerror(failed), dataset)
