"""Files of this side that the client writes: whole or not at all (blocking)."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Protocol

from lamina.errors import InvalidArgument, LaminaError

PIECE_BYTES = 1 << 20


class Readable(Protocol):
    def read(self, amount: int, /) -> bytes: ...


def pieces(source: Readable) -> Iterator[bytes]:
    """Everything of a stream, a megabyte at a time."""
    while data := source.read(PIECE_BYTES):
        yield data


def sender(source: Readable) -> Callable[[Callable[[bytes], None]], None]:
    """A request body made of a stream."""

    def send(write: Callable[[bytes], None]) -> None:
        for data in pieces(source):
            write(data)

    return send


def open_input(path: str | None) -> IO[bytes]:
    """A file to read; standard input for None and `-`.

    Raises:
        InvalidArgument: it cannot be read, or standard input is a terminal.
    """
    if path in (None, "-"):
        if sys.stdin.isatty():
            raise InvalidArgument(
                "nothing to read: standard input is a terminal", hint="redirect a file, or use -i FILE"
            )
        return sys.stdin.buffer
    try:
        return open(str(path), "rb")
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or str(error)).lower()}") from error


def write_output(source: Readable, path: str | None) -> None:
    """A stream into a file, which appears only when it is whole; to standard output for None and `-`.

    Raises:
        InvalidArgument: standard output is a terminal, or the file cannot be made.
    """
    if path in (None, "-"):
        if sys.stdout.isatty():
            raise InvalidArgument(
                "cowardly refusing to write an archive to a terminal", hint="use -o FILE, or redirect the output"
            )
        for data in pieces(source):
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        _write(source, str(path))
    except OSError as error:
        raise LaminaError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def _write(source: Readable, path: str) -> None:
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as file:  # a pipe or device: nothing to replace
            file.writelines(pieces(source))
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path) or ".")
    try:
        with open(descriptor, "wb") as file:
            file.writelines(pieces(source))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
