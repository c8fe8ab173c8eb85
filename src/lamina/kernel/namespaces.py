"""Namespaces made and kept by a file, without ever moving a thread of the daemon into one (blocking).

Source: namespaces(7), unshare(2): a thread that unshares cannot be given back to others, so each call has its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lamina.kernel import libc
from lamina.kernel.mounts import is_mountpoint

T = TypeVar("T")

_OWN_NETWORK = "/proc/thread-self/ns/net"


def hold_new_network_namespace(path: Path, configure: Callable[[int], T]) -> T:
    """Make a network namespace that `path` keeps alive, and run `configure` inside it.

    `configure` gets an open descriptor of the namespace, valid during the call. On error nothing is left.

    Raises:
        FileExistsError: `path` is taken.
        OSError: the namespace cannot be made or kept.
    """

    def work() -> T:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        try:
            libc.unshare(libc.CLONE_NEWNET)
            libc.mount(_OWN_NETWORK, path, "", libc.MS_BIND)
            fd = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return configure(fd)
            finally:
                os.close(fd)
        except BaseException:
            release_namespace(path)
            raise

    return in_own_thread(work)


def release_namespace(path: Path) -> None:
    """Stop keeping the namespace that `path` stands for. A missing file is fine.

    The kernel removes the namespace and the interfaces in it when its last process has ended.
    """
    try:
        libc.umount2(path, libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)
    except OSError:
        # Not mounted (EINVAL: a reboot, a crash between the file and the mount) or not there at all: the file goes.
        if path.exists() and is_mountpoint(path):
            raise
    path.unlink(missing_ok=True)


def in_network_namespace(fd: int, work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own inside the network namespace of `fd`."""

    def inside() -> T:
        libc.setns(fd, libc.CLONE_NEWNET)
        return work()

    return in_own_thread(inside)


def in_own_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that ends with it; its result or error comes back."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread and raised there
            failures.append(error)

    thread = threading.Thread(target=run, name="lamina-namespace")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
