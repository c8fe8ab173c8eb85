"""Unions on request: one warm process forks a server for each, without the start of a program.

The requests come as messages on a socket: the program's words, separated by zero bytes, and with them a descriptor that
the new server tells its success or failure to. The factory ends when the other end of the socket is closed; the
servers go on. They share its memory as long as they do not write to it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable

_LONGEST_BYTES = 1 << 20


def serve(control_fd: int, work: Callable[[list[str], int], int]) -> int:
    """Go into the background; there, do `work(words, tell_fd)` in a process of its own for each request."""
    if os.fork():
        return 0
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # servers end when they end
    with socket.socket(fileno=control_fd) as control:
        while True:
            try:
                message, fds, _, _ = socket.recv_fds(control, _LONGEST_BYTES, 1)
            except ConnectionError:
                break
            if not message:
                break
            if os.fork() == 0:
                _work(control, message, fds[0], work)
            os.close(fds[0])
    sys.stdout.flush()
    os._exit(0)


def _work(control: socket.socket, message: bytes, tell_fd: int, work: Callable[[list[str], int], int]) -> None:
    """The child's whole life."""
    status = 1
    try:
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        status = work([os.fsdecode(word) for word in message.split(b"\0")], tell_fd)
    finally:
        os._exit(status)
