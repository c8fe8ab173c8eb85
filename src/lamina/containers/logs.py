"""Reading a container's json-file log, rotated parts included (blocking).

Source: moby daemon/logger/jsonfilelog; loggerutils/logfile.go for order and tail.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from lamina.changeset.compression import decompressed
from lamina.containers.journal import LogEntry, parse_json_line
from lamina.containers.log_parts import LogParts, open_parts
from lamina.containers.logfile import Mark, json_log

_BLOCK_BYTES = 256 << 10
_GZIP = b"\x1f\x8b"


class LogReader:
    """Reads entries from oldest to newest, and again what has been added since, whatever is put aside meanwhile."""

    def __init__(
        self,
        directory: Path,
        container_id: str,
        *,
        tail: int | None = None,
        live: LogParts | None = None,
        until: Mark | None = None,
    ) -> None:
        """Begin at the start of the oldest part, or `tail` lines before the end.

        `live`: the log of the run that is followed. `until`: end at this place of it.
        """
        self._current = json_log(directory, container_id)
        self._live = live
        self._rest = b""
        self._old: list[bytes] = []
        self._ends = until is not None
        self._seen, opened = live.open_parts() if live is not None else (0, open_parts(self._current))
        self._parts = deque(_Part(fd) for fd in opened)
        if until is not None:
            self._end_at(until)
        if tail is not None:
            self._skip_to(tail)

    def _end_at(self, until: Mark) -> None:
        younger = self._seen - until.rotations
        for _ in range(min(younger, len(self._parts))):
            self._parts.pop().close()
        if self._parts:
            self._parts[-1].limit = until.log

    def _skip_to(self, tail: int) -> None:
        """Keep `tail` lines: whole young parts as they are, of the part where the tail begins only its end."""
        kept: deque[_Part] = deque()
        missing = tail
        # The present part stays open also for a tail of nothing: what is added to it comes later.
        while self._parts and (missing > 0 or not kept):
            part = self._parts.pop()
            found, lines = part.skip_to(missing)
            missing -= found
            if lines is None:
                kept.appendleft(part)
            else:
                self._old = lines + self._old
        self.close()
        self._parts = kept

    def read(self) -> list[LogEntry] | None:
        """The next entries; None when nothing new is there. A half written line is kept for the next call."""
        if self._old:
            old, self._old = self._old, []
            return _entries(old)
        while True:
            # Looked at before reading: what is read afterwards holds everything of a part that was put aside.
            rotations = self._live.rotations if self._live is not None else 0
            raw = self._parts[0].read() if self._parts else b""
            if raw:
                lines = (self._rest + raw).split(b"\n")
                self._rest = lines.pop()
                return _entries(lines)
            if not self._next_part(rotations):
                return None

    def _next_part(self, rotations: int) -> bool:
        """Go on with a younger part; False when there is none yet."""
        if len(self._parts) > 1:
            self._parts.popleft().close()
            self._rest = b""  # a line that a crash cut
            return True
        if self._ends:
            return False
        if self._live is not None and rotations != self._seen:
            self._seen, opened = self._live.open_parts(after=self._seen)
        elif not self._parts:
            opened = open_parts(self._current, 0)
        else:
            return False
        if self._parts:
            self._parts.popleft().close()
            self._rest = b""
        self._parts.extend(_Part(fd) for fd in opened)
        return bool(opened)

    def close(self) -> None:
        """Twice is fine."""
        while self._parts:
            self._parts.popleft().close()


class _Part:
    """One open file of a log, gzipped or not."""

    def __init__(self, fd: int) -> None:
        self._file = open(fd, "rb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._packed: Iterator[bytes] | None = None
        if os.pread(fd, 2, 0) == _GZIP:
            self._packed = decompressed(iter(lambda: self._file.read(_BLOCK_BYTES) or b"", b""))
        self.limit: int | None = None
        """How much may still be read; None: all there is."""

    def read(self) -> bytes:
        """The next bytes, empty at the present end."""
        raw = self._file.read(_BLOCK_BYTES) or b"" if self._packed is None else next(self._packed, b"")
        if self.limit is not None:
            raw = raw[: self.limit]
            self.limit -= len(raw)
        return raw

    def skip_to(self, tail: int) -> tuple[int, list[bytes] | None]:
        """Leave out all but the last `tail` lines; how many there are, and the lines where they had to be read."""
        if self._packed is None:
            size = os.fstat(self._file.fileno()).st_size
            found, start = _tail_offset(self._file.fileno(), size, tail)
            self._file.seek(start)
            return found, None
        lines: deque[bytes] = deque(maxlen=tail)
        rest = b""
        while raw := self.read():
            *whole, rest = (rest + raw).split(b"\n")
            lines.extend(whole)
        self.close()
        return len(lines), list(lines)

    def close(self) -> None:
        self._file.close()


def _entries(lines: list[bytes]) -> list[LogEntry]:
    found = (parse_json_line(line) for line in lines)
    return [entry for entry in found if entry is not None]


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


def sortable(stamp: str) -> str:
    """A log's RFC 3339 time so that text order is time order: nine digits, no zone (always UTC)."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}"


def sortable_ns(when_ns: int) -> str:
    """Nanoseconds since the epoch in the form of `sortable`."""
    seconds, nanos = divmod(when_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanos:09d}"
