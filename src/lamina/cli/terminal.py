"""This side of a container's streams: raw terminals, window sizes, frames, signals (blocking)."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType

_READ_BYTES = 64 << 10
_FRAME = struct.Struct(">BxxxI")


def width() -> int:
    """Columns of the terminal on standard output; 0 when it is none."""
    return shutil.get_terminal_size((0, 0)).columns if sys.stdout.isatty() else 0


def window() -> tuple[int, int]:
    """Rows and columns of the terminal on standard output."""
    found = os.get_terminal_size(1)
    return found.lines, found.columns


@contextlib.contextmanager
def raw_mode() -> Iterator[None]:
    """Keys reach the container untouched; the terminal is as before afterwards."""
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSANOW)  # what was typed already is kept
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def resizing(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Tell the container the size of this terminal, now and whenever it changes."""

    def changed(_: int = 0, __: FrameType | None = None) -> None:
        rows, columns = window()
        resize(rows, columns)

    changed()
    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


_PROXIED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def proxied_signals(kill: Callable[[str], None]) -> Iterator[None]:
    """Signals to this program go to the container instead."""

    def pass_on(number: int, _: FrameType | None) -> None:
        kill(signal.Signals(number).name)

    before = {number: signal.signal(number, pass_on) for number in _PROXIED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Streams:
    """Moves bytes between a taken-over connection and this program's own streams."""

    def __init__(self, connection: socket.socket, *, framed: bool, stdin: bool) -> None:
        self._connection = connection
        self._framed = framed
        self._stdin = stdin
        self._buffer = b""

    def run(self) -> None:
        """Until the other side ends its output."""
        if self._stdin:
            # A thread of its own: reading a terminal must not hold the output up, and dies with the program.
            threading.Thread(target=self._feed, daemon=True).start()
        while data := self._receive():
            self._write(data)

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(_READ_BYTES)
        except (ConnectionResetError, OSError):
            return b""

    def _write(self, data: bytes) -> None:
        if not self._framed:
            _write_all(1, data)
            return
        self._buffer += data
        at = 0
        while len(self._buffer) >= at + _FRAME.size:
            stream, length = _FRAME.unpack_from(self._buffer, at)
            end = at + _FRAME.size + length
            if len(self._buffer) < end:
                break
            _write_all(2 if stream == 2 else 1, self._buffer[at + _FRAME.size : end])
            at = end
        self._buffer = self._buffer[at:]

    def _feed(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(0, _READ_BYTES):
                self._connection.sendall(data)
            self._connection.shutdown(socket.SHUT_WR)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
