"""Reading a container's json-file log, rotated parts included (blocking).

Source: moby daemon/logger/jsonfilelog; loggerutils/logfile.go for order and tail.
"""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lamina.containers.journal import LogEntry, parse_json_line
from lamina.containers.logfile import json_log

_BLOCK_BYTES = 256 << 10
_MAX_ROTATED = 1000


class LogReader:
    """Reads entries from oldest to newest, and again what has been added since."""

    def __init__(self, directory: Path, container_id: str, *, tail: int | None = None) -> None:
        """Begin at the start of the oldest part, or `tail` lines before the end."""
        self._current = json_log(directory, container_id)
        self._fd = -1
        self._rest = b""
        self._old: list[bytes] = []
        self._open()
        size = os.fstat(self._fd).st_size if self._fd >= 0 else 0
        if tail is None:
            self._old = _rotated_lines(self._current)
            return
        found, start = _tail_offset(self._fd, size, tail) if self._fd >= 0 else (0, 0)
        if self._fd >= 0:
            os.lseek(self._fd, start, os.SEEK_SET)
        if found < tail:
            self._old = _rotated_lines(self._current)[-(tail - found) :]

    def _open(self) -> None:
        try:
            self._fd = os.open(self._current, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._fd = -1

    def read(self) -> list[LogEntry] | None:
        """The next entries; None when nothing new is there. A half written line is kept for the next call."""
        if self._old:
            old, self._old = self._old, []
            return _entries(old)
        if self._fd < 0:
            self._open()
            if self._fd < 0:
                return None
        raw = os.read(self._fd, _BLOCK_BYTES)
        if not raw:
            return None
        lines = (self._rest + raw).split(b"\n")
        self._rest = lines.pop()
        return _entries(lines)

    def close(self) -> None:
        """Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _entries(lines: list[bytes]) -> list[LogEntry]:
    found = (parse_json_line(line) for line in lines)
    return [entry for entry in found if entry is not None]


def _rotated_lines(current: Path) -> list[bytes]:
    """Lines of `<log>.N` (or `.N.gz`), highest N first: that is the oldest."""
    lines: list[bytes] = []
    for raw in _rotated(current):
        lines += raw.splitlines()
    return lines


def _rotated(current: Path) -> Iterator[bytes]:
    parts: list[Path] = []
    for number in range(1, _MAX_ROTATED):
        plain, packed = Path(f"{current}.{number}"), Path(f"{current}.{number}.gz")
        found = plain if plain.exists() else packed
        if not found.exists():
            break
        parts.append(found)
    for part in reversed(parts):
        raw = part.read_bytes()
        yield gzip.decompress(raw) if part.suffix == ".gz" else raw


def _tail_offset(fd: int, size: int, lines: int) -> tuple[int, int]:
    """How many of the last `lines` lines there are, and where they begin."""
    if lines <= 0:
        return 0, size
    ended = size > 0 and os.pread(fd, 1, size - 1) == b"\n"
    at, found = (size - 1 if ended else size), 0
    while at > 0:
        start = max(0, at - _BLOCK_BYTES)
        block = os.pread(fd, at - start, start)
        place = len(block)
        while (newline := block.rfind(b"\n", 0, place)) >= 0:
            found += 1
            if found == lines:
                return lines, start + newline + 1
            place = newline
        at = start
    return (found + 1 if size else 0), 0


def entries_before(directory: Path, container_id: str, log_bytes: int | None) -> tuple[LogEntry, ...]:
    """The log up to a place in its current part (None: all of it)."""
    try:
        with json_log(directory, container_id).open("rb") as file:
            raw = file.read() if log_bytes is None else file.read(log_bytes)
    except FileNotFoundError:
        raw = b""
    return tuple(_entries(_rotated_lines(json_log(directory, container_id)) + raw.splitlines()))


def sortable(stamp: str) -> str:
    """A log's RFC 3339 time so that text order is time order: nine digits, no zone (always UTC)."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}"


def sortable_ns(when_ns: int) -> str:
    """Nanoseconds since the epoch in the form of `sortable`."""
    seconds, nanos = divmod(when_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanos:09d}"
