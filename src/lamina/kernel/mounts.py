"""Mounts as values, the calls that carry them out, and the table of what is mounted (blocking)."""

from __future__ import annotations

import errno
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from lamina.kernel import libc

LONGEST_DATA = os.sysconf("SC_PAGE_SIZE") - 1
"""Bytes of option string that mount(2) takes: one page, with its final zero."""


@dataclass(frozen=True, slots=True)
class Mount:
    """How to mount one file system.

    `target` is where. `flags` are MS_* bits. `data` is the option string as mount(2) takes it. `cwd` is the directory
    the call must be made in when `data` holds relative paths (long overlay stacks), else None.

    `helper` is a program with its arguments that mounts the file system instead of mount(2), as mount(8)'s mount
    helpers do: it ends with status 0 once `target` is mounted, and leaves behind whatever serves it; anything else is a
    failure, told on its standard error. It is started in `cwd`. Where `factory` is not 0, that many of its words and
    `--factory FD` start a process that mounts many (`unionfs/factory.py`). `flush` is a program to run before the
    unmount where it is installed (auplink(8) of aufs). All are run by `storage/mount_helper.py` and `mount_factory.py`.
    """

    fstype: str
    source: str
    target: Path
    flags: int = 0
    data: str = ""
    cwd: Path | None = None
    helper: tuple[str, ...] = ()
    factory: int = 0
    flush: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of /proc/self/mountinfo. Source: proc(5).

    `root` is the directory of the file system that is seen at `target`; `optional` holds the propagation fields
    (`shared:7`, `master:3`).
    """

    mount_id: int
    parent_id: int
    major: int
    minor: int
    root: str
    target: str
    options: str
    optional: tuple[str, ...]
    fstype: str
    source: str
    super_options: str


def mount(wanted: Mount) -> None:
    """Carry out one mount that needs no helper.

    Raises:
        OSError: errno of mount(2) with the target's path; EINVAL before the call when `data` exceeds one page, because
            the kernel would cut it off without a word, and when it is for a mount helper to carry out.
    """
    if wanted.helper:
        raise OSError(errno.EINVAL, "only its mount helper can mount it", os.fspath(wanted.target))
    if len(os.fsencode(wanted.data)) > LONGEST_DATA:
        raise OSError(errno.EINVAL, f"mount options exceed {LONGEST_DATA} bytes", os.fspath(wanted.target))
    if wanted.cwd is None:
        libc.mount(wanted.source, wanted.target, wanted.fstype, wanted.flags, data=wanted.data)
        return
    _mount_in_directory(wanted, wanted.cwd)


def unmount(path: Path, *, detach: bool = False) -> None:
    """Unmount what was mounted last at `path`; a symlink there is not followed.

    With `detach` the mount disappears from the tree at once and ends when its last user does (MNT_DETACH).
    """
    libc.umount2(path, libc.UMOUNT_NOFOLLOW | (libc.MNT_DETACH if detach else 0))


def bind(source: Path, target: Path, *, recursive: bool = False, read_only: bool = False) -> None:
    """Show the tree (or file) `source` at `target` too.

    Read-only takes a second call, so for a moment the new mount is writable; on failure nothing stays mounted.
    """
    libc.mount(source, target, "", libc.MS_BIND | (libc.MS_REC if recursive else 0))
    if not read_only:
        return
    try:
        libc.mount("", target, "", libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY)
    except OSError:
        unmount(target, detach=True)
        raise


def set_propagation(path: Path, kind: str, *, recursive: bool = False) -> None:
    """Make the mount at `path` `private`, `shared`, `slave` or `unbindable`."""
    flag = {
        "private": libc.MS_PRIVATE,
        "shared": libc.MS_SHARED,
        "slave": libc.MS_SLAVE,
        "unbindable": libc.MS_UNBINDABLE,
    }[kind]
    libc.mount("", path, "", flag | (libc.MS_REC if recursive else 0))


def mount_table() -> list[MountEntry]:
    """Everything mounted in this mount namespace, in the kernel's order (parents first)."""
    with open("/proc/self/mountinfo", "rb") as file:
        return parse_mount_table(file.read())


def parse_mount_table(text: bytes) -> list[MountEntry]:
    """Decode mountinfo; lines that do not have its shape are left out."""
    found: list[MountEntry] = []
    for line in text.split(b"\n"):
        fields = line.split(b" ")
        try:
            dash = fields.index(b"-", 6)
        except ValueError:
            continue
        if len(fields) < dash + 4:
            continue
        major, _, minor = fields[2].partition(b":")
        found.append(
            MountEntry(
                mount_id=int(fields[0]),
                parent_id=int(fields[1]),
                major=int(major),
                minor=int(minor),
                root=_unescape(fields[3]),
                target=_unescape(fields[4]),
                options=os.fsdecode(fields[5]),
                optional=tuple(os.fsdecode(field) for field in fields[6:dash]),
                fstype=os.fsdecode(fields[dash + 1]),
                source=_unescape(fields[dash + 2]),
                super_options=_unescape(fields[dash + 3]),
            )
        )
    return found


def is_mountpoint(path: Path) -> bool:
    """Is something mounted at exactly this place? A missing path is no mount point; a symlink is not followed.

    The kernel is asked to step from the parent to the name without crossing a mount, which takes microseconds where
    reading the mount table takes milliseconds, and sees bind mounts, which comparing device numbers does not.
    """
    directory, name = os.path.split(os.path.normpath(path))
    if not name:
        return True  # the root directory
    try:
        fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        os.close(libc.openat2(fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=libc.RESOLVE_NO_XDEV))
    except OSError as error:
        if error.errno == errno.EXDEV:
            return True
        if error.errno == errno.ENOENT:
            return False
        if error.errno == errno.ENOSYS:
            place = os.path.join(os.path.realpath(directory), name)
            return any(entry.target == place for entry in mount_table())
        raise
    finally:
        os.close(fd)
    return False


def is_served(path: Path) -> bool:
    """Does the server of the file system at `path` still run? Always so for file systems of the kernel itself.

    A file system in user space whose server is gone answers ENOTCONN. Attributes may still come from the kernel's
    cache then, but the room on it never does.
    """
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno not in {errno.ENOTCONN, errno.ECONNABORTED}
    return True


def _mount_in_directory(wanted: Mount, directory: Path) -> None:
    """Mount with `directory` as the working directory, in a thread that has a working directory of its own.

    The kernel keeps the working directory per thread; unshare(CLONE_FS) takes this thread out of the sharing, and the
    thread ends right after, so nobody else ever sees the change and no process is started.
    """
    failures: list[OSError] = []

    def work() -> None:
        try:
            libc.unshare(libc.CLONE_FS)
            os.chdir(directory)
            libc.mount(wanted.source, wanted.target, wanted.fstype, wanted.flags, data=wanted.data)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="mount")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _unescape(field: bytes) -> str:
    r"""Undo the kernel's `\040` for space, tab, newline, backslash and `#`."""
    if b"\\" in field:
        field = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)
    return os.fsdecode(field)
