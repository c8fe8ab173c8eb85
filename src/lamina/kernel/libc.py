"""ctypes bindings for the system calls Python does not offer, and the one failure check (blocking).

Every function raises `OSError` with errno, its text and the path it was about. Strings go to the kernel as bytes
through `os.fsencode`, so names that are not UTF-8 work. ctypes lets other threads run while a call is in the kernel.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from typing import TypeAlias

StrOrBytesPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# linux/sched.h
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# linux/fs.h
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_IO_FLUSHER = 57

# linux/inotify.h
IN_MODIFY = 0x2
IN_CLOEXEC = 0o2000000
IN_NONBLOCK = 0o4000

# Numbers from 424 on are the same on every architecture; pivot_root is older.
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_OPENAT2 = 437
_SYS_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.syncfs.argtypes = (ctypes.c_int,)
_libc.syscall.restype = ctypes.c_long
_libc.statfs.argtypes = (ctypes.c_char_p, ctypes.c_void_p)
_libc.opendir.restype = ctypes.c_void_p
_libc.opendir.argtypes = (ctypes.c_char_p,)
_libc.readdir.argtypes = (ctypes.c_void_p,)
_libc.closedir.argtypes = (ctypes.c_void_p,)


class _OpenHow(ctypes.Structure):
    """`struct open_how` of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _Dirent(ctypes.Structure):
    """`struct dirent` of readdir(3) on 64-bit Linux."""

    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    )


_libc.readdir.restype = ctypes.POINTER(_Dirent)


def mount(source: StrOrBytesPath, target: StrOrBytesPath, fstype: str, flags: int = 0, *, data: str = "") -> None:
    """Mount a file system.

    Source: mount(2).
    """
    done = _libc.mount(
        os.fsencode(source), os.fsencode(target), os.fsencode(fstype) or None, flags, os.fsencode(data) or None
    )
    _check(done, target)


def umount2(target: StrOrBytesPath, flags: int = 0) -> None:
    """Unmount what is mounted last at `target`.

    Source: umount(2).
    """
    _check(_libc.umount2(os.fsencode(target), flags), target)


def setns(fd: int, nstype: int = 0) -> None:
    """Move the calling thread into the namespace `fd` stands for.

    Source: setns(2).
    """
    _check(_libc.setns(fd, nstype))


def unshare(flags: int) -> None:
    """Give the calling thread its own copy of what `flags` names.

    Source: unshare(2).
    """
    _check(_libc.unshare(flags))


def quotactl(operation: int, device: StrOrBytesPath, identity: int, data: bytes) -> bytes:
    """Ask or tell a file system about a quota; `data` as the kernel left it.

    Source: quotactl(2).
    """
    buffer = ctypes.create_string_buffer(data, len(data))
    _check(_libc.quotactl(operation, os.fsencode(device), identity, buffer), device)
    return buffer.raw


def syncfs(fd: int) -> None:
    """Write out everything the file system of `fd` holds in memory.

    Source: syncfs(2).
    """
    _check(_libc.syncfs(fd))


SYNC_FILE_RANGE_WRITE = 2
SYNC_FILE_RANGE_WRITE_AND_WAIT = 7


def sync_file_range(fd: int, flags: int) -> None:
    """Start writing a file's data out, or also wait until it is written; names and sizes are not synced.

    Source: sync_file_range(2).
    """
    _check(_libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(flags)))


def prctl(option: int, value: int) -> None:
    """Set one property of the calling process.

    Source: prctl(2).
    """
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def inotify_init1(flags: int) -> int:
    """A descriptor that tells of changes to watched files.

    Source: inotify_init(2).
    """
    fd: int = _libc.inotify_init1(flags)
    _check(fd)
    return fd


def inotify_add_watch(fd: int, path: StrOrBytesPath, mask: int) -> int:
    """Watch one file for the events of `mask`; gives the number its events carry.

    Source: inotify_add_watch(2).
    """
    watch: int = _libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask))
    _check(watch, path)
    return watch


def inotify_rm_watch(fd: int, watch: int) -> None:
    """Stop watching what `watch` stands for.

    Source: inotify_rm_watch(2).
    """
    _check(_libc.inotify_rm_watch(fd, watch))


def runs_x32() -> bool:
    """Whether this kernel runs programs of the x32 ABI; asked by calling its getpid.

    Source: arch/x86/include/uapi/asm/unistd.h, __X32_SYSCALL_BIT.
    """
    if platform.machine() != "x86_64":
        return False
    return bool(_libc.syscall(ctypes.c_long(0x40000000 | 39)) > 0)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give the blocks of a range back to the file system; the file keeps its size and reads as zeros there.

    Source: fallocate(2), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
    """
    _check(_libc.fallocate(fd, 0x03, ctypes.c_int64(offset), ctypes.c_int64(length)))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Give, take, zero or move the blocks of a range.

    Source: fallocate(2).
    """
    _check(_libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2


def utimensat(
    path: StrOrBytesPath, atime: tuple[int, int], mtime: tuple[int, int], *, follow_symlinks: bool = False
) -> None:
    """Set a file's times, as seconds and nanoseconds; `UTIME_NOW` and `UTIME_OMIT` stand in the nanoseconds' place.

    Source: utimensat(2).
    """
    times = (ctypes.c_int64 * 4)(*atime, *mtime)
    _check(_libc.utimensat(-100, os.fsencode(path), ctypes.byref(times), 0 if follow_symlinks else 0x100), path)


def pivot_root(new_root: StrOrBytesPath, put_old: StrOrBytesPath) -> None:
    """Change the root mount of the calling thread's mount namespace.

    Source: pivot_root(2).
    """
    number = _SYS_PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(ctypes.c_long(number), os.fsencode(new_root), os.fsencode(put_old)), new_root)


def renameat2(old: StrOrBytesPath, new: StrOrBytesPath, flags: int, *, old_fd: int = -100, new_fd: int = -100) -> None:
    """Rename with RENAME_NOREPLACE or RENAME_EXCHANGE; -100 is AT_FDCWD.

    Source: rename(2).
    """
    number = _SYS_RENAMEAT2[platform.machine()]
    done = _libc.syscall(
        ctypes.c_long(number),
        ctypes.c_int(old_fd),
        os.fsencode(old),
        ctypes.c_int(new_fd),
        os.fsencode(new),
        ctypes.c_uint(flags),
    )
    _check(done, old)


def openat2(dir_fd: int, path: StrOrBytesPath, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open with rules for how the path is resolved; the new descriptor is close-on-exec.

    Source: openat2(2).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    fd: int = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(dir_fd),
        os.fsencode(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    _check(fd, path)
    return fd


def fsopen(fstype: str) -> int:
    """Begin to set up a file system that is then mounted by `fsmount`; a close-on-exec descriptor.

    Source: fsopen(2), linux/mount.h FSOPEN_CLOEXEC.
    """
    fd: int = _libc.syscall(ctypes.c_long(_SYS_FSOPEN), fstype.encode(), ctypes.c_uint(1))
    _check(fd, fstype)
    return fd


def fsconfig_flag(fd: int, key: str) -> None:
    """Set an option without value. Source: fsconfig(2), FSCONFIG_SET_FLAG."""
    _check(_fsconfig(fd, 0, key.encode(), None), key)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set an option with a value. Source: fsconfig(2), FSCONFIG_SET_STRING."""
    _check(_fsconfig(fd, 1, key.encode(), os.fsencode(value)), f"{key}={value}")


def fsconfig_create(fd: int, source: StrOrBytesPath) -> None:
    """Read the file system as it was set up; `source` is for the message. Source: fsconfig(2), FSCONFIG_CMD_CREATE."""
    _check(_fsconfig(fd, 6, None, None), source)


def fsmount(fd: int) -> int:
    """Mount what was set up, at no path: a close-on-exec descriptor of its root.

    Source: fsmount(2), linux/mount.h FSMOUNT_CLOEXEC.
    """
    root: int = _libc.syscall(ctypes.c_long(_SYS_FSMOUNT), ctypes.c_int(fd), ctypes.c_uint(1), ctypes.c_uint(0))
    _check(root)
    return root


def _fsconfig(fd: int, command: int, key: bytes | None, value: bytes | None) -> int:
    number = ctypes.c_long(_SYS_FSCONFIG)
    done: int = _libc.syscall(number, ctypes.c_int(fd), ctypes.c_uint(command), key, value, ctypes.c_int(0))
    return done


def file_system_type(path: StrOrBytesPath) -> int:
    """The magic number of the file system `path` is on (linux/magic.h), as an unsigned 32-bit value.

    Source: statfs(2); `f_type` is the first word of the struct on every 64-bit Linux.
    """
    room = ctypes.create_string_buffer(256)
    _check(_libc.statfs(os.fsencode(path), room), path)
    return int.from_bytes(room.raw[:8], sys.byteorder) & 0xFFFFFFFF


def entry_types(directory: StrOrBytesPath) -> dict[bytes, int]:
    """The `d_type` that the directory itself records per name; 0 (DT_UNKNOWN) where it records none.

    `os.scandir` cannot tell: it asks `lstat` behind our back. Source: readdir(3).
    """
    handle = _libc.opendir(os.fsencode(directory))
    if not handle:
        _check(-1, directory)
    found: dict[bytes, int] = {}
    try:
        while entry := _libc.readdir(handle):
            found[bytes(entry.contents.d_name)] = int(entry.contents.d_type)
    finally:
        _libc.closedir(handle)
    return found


def _check(result: int, path: StrOrBytesPath | None = None) -> None:
    """Turn -1 into the exception that errno stands for."""
    if result >= 0:
        return
    code = ctypes.get_errno()
    if path is None:
        raise OSError(code, os.strerror(code))
    raise OSError(code, os.strerror(code), os.fsdecode(path))
