"""Processes held by file descriptor, so that a reused number is never signalled (blocking).

Source: pidfd_open(2), pidfd_send_signal(2), waitid(2) P_PIDFD (Linux 5.4).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal


def open_pidfd(pid: int) -> int:
    """A close-on-exec descriptor of a process; readable once it has ended. A zombie can still be opened.

    Raises:
        ProcessLookupError: no such process.
    """
    return os.pidfd_open(pid)


def has_ended(pidfd: int) -> bool:
    """Has the process ended (it may still be a zombie)?"""
    return wait_ended(pidfd, 0)


def wait_ended(pidfd: int, timeout_s: float | None) -> bool:
    """Wait until the process has ended, at most `timeout_s` (None: for ever). False when it still runs."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else max(0, int(timeout_s * 1000))))


def send(pidfd: int, number: int) -> bool:
    """Signal the process. False when it is gone."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def reap(pidfd: int) -> int | None:
    """Collect the exit status of a child that has ended: 0 to 255, or 128 + signal number.

    None when it is not our child (any more) or still runs.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return result.si_status
    return 128 + result.si_status


def zombie_children() -> frozenset[int]:
    """Our children that have ended and were not collected yet, adopted ones included."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", "rb") as file:
                children = file.read().split()
        except FileNotFoundError:
            continue
        found.update(int(child) for child in children if _is_zombie(int(child)))
    return frozenset(found)


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].startswith(b"Z")
    except (FileNotFoundError, ProcessLookupError):
        return False


def collect_child(pid: int) -> None:
    """Collect a child that has ended, whatever its status. One that is no child of ours is fine."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot: with the number it names one process for ever.

    Raises:
        ProcessLookupError: no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except FileNotFoundError as error:
        raise ProcessLookupError(f"no process {pid}") from error
    # Field 22 of proc(5) stat; the name in field 2 may hold spaces and brackets, so count from its end.
    return int(stat.rpartition(b")")[2].split()[19])


def close(pidfd: int) -> None:
    """Close the descriptor. Twice is fine."""
    with contextlib.suppress(OSError):
        os.close(pidfd)
