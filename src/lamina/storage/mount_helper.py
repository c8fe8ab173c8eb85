"""Any mount carried out and taken down again: by the kernel alone, or by the program that mounts it (blocking).

A file system in user space has a program that mounts it and a process that serves it from then on. The program is run
as mount(8) runs its mount helpers; the process it leaves behind has a session of its own, belongs to no container, and
outlives the daemon. It ends when the last user of the mount is gone.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress

from lamina.errors import ProcessFailed
from lamina.kernel import libc
from lamina.kernel.mounts import Mount, is_mountpoint, mount, unmount
from lamina.programs.run import installed, run, signal_name

PATIENCE_S = 30.0
_SAID_CHARACTERS = 2000
_FLUSHES = 5
_NOT_MOUNTED = frozenset({errno.EINVAL, errno.ENOENT})


def carry_out(wanted: Mount) -> None:
    """Make one mount. On error nothing of it is left.

    Raises:
        OSError: the kernel refused.
        ProcessFailed: its mount helper failed, with what it said.
        Unsupported: the helper is not installed.
    """
    if not wanted.helper:
        mount(wanted)
        return
    try:
        _run_helper(wanted)
    except BaseException:
        with suppress(OSError):  # it may have got as far as mounting
            unmount(wanted.target, detach=True)
        raise


def take_down(mounts: Sequence[Mount]) -> None:
    """Unmount what `carry_out` made, in reverse; a place that is not mounted any more is fine.

    Detached, so that a process which still looks inside does not keep a container from going, and so that a mount whose
    server has died goes too.

    Raises:
        OSError: the kernel refused.
    """
    for wanted in reversed(mounts):
        if wanted.flags & libc.MS_REMOUNT:
            continue  # a change of a mount before it
        _flush(wanted)
        try:
            unmount(wanted.target, detach=True)
        except OSError as error:
            if error.errno not in _NOT_MOUNTED:
                raise


def _run_helper(wanted: Mount) -> None:
    done = run(wanted.helper, timeout=PATIENCE_S, cwd=wanted.cwd, new_session=True, check=False)
    said = done.stderr.decode(errors="replace").strip()[-_SAID_CHARACTERS:]
    what = f"{wanted.fstype} could not be mounted on {wanted.target}"
    if done.status != 0:
        raise ProcessFailed(f"{what}: {said or signal_name(done.status)}")
    if not is_mountpoint(wanted.target):
        raise ProcessFailed(f"{what}: {wanted.helper[0]} ended well but mounted nothing", hint=said)


def _flush(wanted: Mount) -> None:
    """Run the program that must come before the unmount; it can miss the mount while the table is changing.

    Source: moby daemon/graphdriver/aufs/mount.go, Unmount.
    """
    if not wanted.flush or installed(wanted.flush[0]) is None:
        return
    for _ in range(_FLUSHES):
        if run(wanted.flush, check=False).status != errno.EINVAL:
            return
