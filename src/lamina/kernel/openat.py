"""Names resolved inside a root, by the kernel (blocking).

An untrusted path is never joined to a host path: a symlink in it could lead anywhere, and could be changed between a
check and the use. openat2(2) resolves it as if `root_fd` were `/`, in one step that nobody can race.
"""

from __future__ import annotations

import contextlib
import errno
import os

from lamina.errors import Unsupported
from lamina.kernel import libc

_RETRIES = 100


def open_in_root(
    root_fd: int,
    name: bytes | str,
    flags: int,
    mode: int = 0,
    *,
    beneath: bool = False,
    nofollow_last: bool = False,
    no_symlinks: bool = False,
    no_xdev: bool = False,
) -> int:
    """Open `name` as seen by a process whose `/` is `root_fd`; the new descriptor is close-on-exec.

    Absolute names, absolute symlinks and `..` stay inside the root. `beneath` refuses (EXDEV) what would need that
    instead of bending it. `nofollow_last` opens a symlink in the last place as such (with O_PATH) or fails with ELOOP.
    `no_symlinks` refuses every symlink on the way (ELOOP); `no_xdev` refuses to cross a mount (EXDEV). Magic links of
    /proc are always refused.

    Raises:
        Unsupported: the kernel lacks openat2 (before 5.6) or a seccomp filter hides it.
        OSError: as open(2).
    """
    resolve = libc.RESOLVE_NO_MAGICLINKS | (libc.RESOLVE_BENEATH if beneath else libc.RESOLVE_IN_ROOT)
    if no_symlinks:
        resolve |= libc.RESOLVE_NO_SYMLINKS
    if no_xdev:
        resolve |= libc.RESOLVE_NO_XDEV
    if nofollow_last:
        flags |= os.O_NOFOLLOW
    if not flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY):
        mode = 0  # openat2 refuses a mode that would mean nothing
    for _ in range(_RETRIES):
        try:
            return libc.openat2(root_fd, name or b".", flags, mode=mode, resolve=resolve)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                continue  # a rename somewhere on the machine made `..` unsafe for this attempt: openat2(2)
            if error.errno == errno.ENOSYS:
                raise Unsupported(
                    "this kernel has no openat2, which keeps names inside a container's root",
                    hint="use Linux 5.6 or later",
                ) from error
            raise
    raise OSError(errno.EAGAIN, "names keep changing while they are resolved", os.fsdecode(name))


def open_parent_in_root(root_fd: int, name: bytes | str) -> tuple[int, bytes]:
    """The directory that holds `name`, opened O_PATH inside the root, and the last component.

    The last component is not looked at: it may be absent or a symlink. It is `b"."` for the root itself, and it is
    never `..` (that is resolved first, like any directory).
    """
    path = os.fsencode(name).rstrip(b"/")
    parent, _, last = path.rpartition(b"/")
    if last in {b"", b".", b".."}:
        parent, last = path, b"."
    fd = open_in_root(root_fd, parent or b".", os.O_PATH | os.O_DIRECTORY)
    return fd, last


def read_in_root(root_fd: int, name: bytes | str, limit_bytes: int) -> bytes:
    """The first `limit_bytes` of a regular file inside the root; opening never blocks on a fifo or device.

    Raises:
        OSError: EINVAL when it is no regular file; else as open(2).
    """
    fd = open_in_root(root_fd, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_mode & 0o170000 != 0o100000:
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(name))
        return file.read(limit_bytes)


def make_dirs_in_root(root_fd: int, name: bytes | str, mode: int = 0o755) -> int:
    """Make the directory `name` and its missing parents inside the root; a descriptor of it (O_RDONLY).

    Existing symlinks to directories are followed inside the root. A file in the way gives ENOTDIR.
    """
    with contextlib.suppress(FileNotFoundError):  # then it is made below
        return open_in_root(root_fd, name, os.O_RDONLY | os.O_DIRECTORY)
    path = os.fsencode(name).rstrip(b"/")
    parent, _, last = path.rpartition(b"/")
    if last in {b"", b".", b".."}:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(name))
    parent_fd = make_dirs_in_root(root_fd, parent or b".", mode)
    try:
        with contextlib.suppress(FileExistsError):  # made by somebody just now, or a dangling symlink: open will tell
            os.mkdir(last, mode, dir_fd=parent_fd)
        return open_in_root(parent_fd, last, os.O_RDONLY | os.O_DIRECTORY, nofollow_last=True)
    finally:
        os.close(parent_fd)
