"""From the journal to Docker's json-file, and to whoever is attached (blocking).

Where the run's output begins in the json-file is in the journal's file name, and the conversion is deterministic, so a
new daemon converts again from there and writes only what the file lacks. A journal that has grown long is freed from
its front once everybody has read it: `journal-<offset>.at` then says where to begin in journal and json-file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from lamina.containers.journal import JournalParser, JsonLines
from lamina.kernel import durable, libc

READ_BYTES = 256 << 10
LONG_BYTES = 8 << 20
"""So much of a journal is freed at a time."""
_PREFIX = "journal-"


@dataclass(frozen=True, slots=True)
class Mark:
    """The same place in the journal and in the json-file: the end of a line of both."""

    journal: int
    log: int


def json_log(directory: Path, container_id: str) -> Path:
    """Docker's log file of a container; `directory` is `containers/<id>`."""
    return directory / f"{container_id}-json.log"


def new_journal(directory: Path, container_id: str) -> Path:
    """Where the next run is recorded: the name says how long the json-file is now."""
    try:
        size = json_log(directory, container_id).stat().st_size
    except FileNotFoundError:
        size = 0
    return directory / f"{_PREFIX}{size}"


def journals(directory: Path) -> list[Path]:
    """Journals that are not finished, oldest first."""
    found = [path for path in directory.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(found, key=journal_offset)


def journal_offset(journal: Path) -> int:
    """Where in the json-file the output of this journal begins."""
    return int(journal.name.removeprefix(_PREFIX))


class JournalReader:
    """Reads what has been recorded so far, again and again, at its own speed; safe against the file's removal."""

    def __init__(self, journal_fd: int, at: int = 0) -> None:
        """`journal_fd` stays the caller's: it is duplicated. `at` is where to begin."""
        self._fd = os.dup(journal_fd)
        self.at = at
        self._parser = JournalParser()

    def skip_to_end(self) -> None:
        """Leave out what is recorded already (whole lines only)."""
        at = os.fstat(self._fd).st_size
        # A line may be half written: begin behind the last newline.
        while at > 0:
            start = max(0, at - READ_BYTES)
            newline = os.pread(self._fd, at - start, start).rfind(b"\n")
            if newline >= 0:
                at = start + newline + 1
                break
            at = start
        self.at = at

    def read(self, limit_bytes: int = READ_BYTES) -> list[tuple[int, bytes]] | None:
        """Bytes by stream, in order; neighbours of one stream come as one. None when nothing new is there."""
        raw = os.pread(self._fd, limit_bytes, self.at)
        if not raw:
            return None
        self.at += len(raw)
        found: list[tuple[int, bytes]] = []
        parts: list[bytes] = []
        stream = 0
        for piece in self._parser.feed(raw):
            if piece.stream != stream and parts:
                found.append((stream, b"".join(parts)))
                parts = []
            stream = piece.stream
            parts.append(piece.data)
        if parts:
            found.append((stream, b"".join(parts)))
        return found

    def close(self) -> None:
        """Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class JournalPump:
    """Writes the json-file lines of one journal; one thread at a time."""

    def __init__(self, journal: Path, log: Path, *, attrs: str = "", long_bytes: int = LONG_BYTES) -> None:
        self.journal = journal
        self.start = _read_mark(journal)
        self._long_bytes = long_bytes
        self._source = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except BaseException:
            os.close(self._source)
            raise
        self._skip = max(0, os.fstat(self._log).st_size - self.start.log)
        self._at = self.start.journal
        self._log_at = self.start.log
        self._parser = JournalParser()
        self._lines = JsonLines(attrs)
        self._unwritten = b""

    def advance(self) -> bool:
        """Convert the next piece of the journal. False when there was nothing new.

        Raises:
            OSError: the log cannot be written (disk full); what was converted is tried again with the next call.
        """
        self._write(b"")
        raw = os.pread(self._source, READ_BYTES, self._at)
        if not raw:
            return False
        self._at += len(raw)
        self._write(b"".join(self._lines.feed(self._parser.feed(raw))))
        return True

    def finish(self) -> None:
        """The container has ended: convert the rest, remove the journal. `close` is still due."""
        while self.advance():
            pass
        self._write(b"".join(self._lines.finish()))
        self.journal.unlink(missing_ok=True)
        _mark_path(self.journal).unlink(missing_ok=True)

    def mark(self) -> Mark | None:
        """Where the journal could be freed up to: a long way behind `start`, and no line is half converted."""
        at = self._at - self._parser.unread_bytes
        if at - self.start.journal < self._long_bytes or self._unwritten or not self._lines.holds_nothing:
            return None
        return Mark(at, self._log_at)

    def free_before(self, mark: Mark) -> None:
        """Everybody has read up to here: give the disk back. From now on reading begins at `mark`."""
        durable.write_file_lazy(_mark_path(self.journal), f"{mark.journal} {mark.log}\n".encode())
        freed = self.start.journal
        self.start = mark
        try:
            libc.punch_hole(self._source, freed, mark.journal - freed)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a file system without holes keeps the whole journal
                raise

    def _write(self, data: bytes) -> None:
        self._log_at += len(data)
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._unwritten += data
        while self._unwritten:
            done = os.write(self._log, self._unwritten)
            self._unwritten = self._unwritten[done:]

    @property
    def journal_fd(self) -> int:
        """The open journal, for readers to duplicate."""
        return self._source

    def close(self) -> None:
        """Stop here; the journal stays. Twice is fine."""
        for fd in (self._source, self._log):
            if fd >= 0:
                os.close(fd)
        self._source = self._log = -1


def _mark_path(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.at")


def _read_mark(journal: Path) -> Mark:
    with contextlib.suppress(FileNotFoundError, ValueError):
        at, log = _mark_path(journal).read_text().split()
        return Mark(int(at), int(log))
    return Mark(0, journal_offset(journal))
