"""From the journal to Docker's json-file, and to whoever is attached (blocking).

Where the run's output begins in the json-file is in the journal's file name, and the conversion is deterministic, so a
new daemon converts again from there and writes only what the file lacks. `journal-<offset>.at` names a later place to
begin at: when a journal that has grown long was freed from its front, and when a new part of the log was begun.
"""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from lamina.containers.journal import JournalParser, JsonLines, Piece
from lamina.containers.log_options import NO_ROTATION, Rotation
from lamina.containers.log_parts import LogParts
from lamina.kernel import durable, libc

_LOG = logging.getLogger(__name__)

READ_BYTES = 256 << 10
LONG_BYTES = 8 << 20
"""So much of a journal is freed at a time."""
_MOST_GROWTH = 8
"""A byte of the journal becomes at most so many bytes of the log (an escape has six; each line has its frame)."""
_PREFIX = "journal-"


@dataclass(frozen=True, slots=True)
class Mark:
    """The same place in the journal and in the log: the end of a line of both, but for the `pending` ones.

    `log` is an offset in one part of the log. `inode` says which (0: the one that was there when the run began);
    `rotations` says the same to whoever looks while the run is followed.
    """

    journal: int
    log: int
    inode: int = 0
    pending: tuple[Piece, ...] = ()
    rotations: int = 0


START = Mark(0, 0)


def json_log(directory: Path, container_id: str) -> Path:
    """Docker's log file of a container; `directory` is `containers/<id>`."""
    return directory / f"{container_id}-json.log"


def new_journal(directory: Path, container_id: str) -> Path:
    """Where the next run is recorded: the name says how long the json-file is now. Earlier journals are finished."""
    for stale in directory.glob(f"{_PREFIX}*.at"):
        stale.unlink()  # its journal was removed, and the daemon killed in that moment
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

    def __init__(self, journal_fd: int, start: Mark = START) -> None:
        """`journal_fd` stays the caller's: it is duplicated. Lines that are pending at `start` come first."""
        self._fd = os.dup(journal_fd)
        self.at = start.journal
        self._first = [(piece.stream, piece.data) for piece in start.pending]
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
        self._first = []

    def read(self, limit_bytes: int = READ_BYTES) -> list[tuple[int, bytes]] | None:
        """Bytes by stream, in order; neighbours of one stream come as one. None when nothing new is there."""
        if self._first:
            first, self._first = self._first, []
            return first
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
    """Writes the log lines of one journal; one thread at a time."""

    def __init__(
        self,
        journal: Path,
        log: Path,
        *,
        attrs: str = "",
        rotation: Rotation = NO_ROTATION,
        long_bytes: int = LONG_BYTES,
    ) -> None:
        self.journal = journal
        mark = _read_mark(journal)
        self._long_bytes = long_bytes
        self._source = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            self.parts = LogParts(log, rotation, next_inode=mark.inode or None)
        except BaseException:
            os.close(self._source)
            raise
        self.start = mark
        self._skip = max(0, self.parts.size - mark.log) if mark.inode in (0, self.parts.inode) else 0
        self._at = mark.journal
        self._log_at = mark.log
        self._parser = JournalParser()
        self._lines = JsonLines(attrs)
        self._lines.restore(mark.pending)
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
        if len(raw) * _MOST_GROWTH < self.parts.room_bytes:
            self._convert(raw)
        else:
            self._convert_to_the_line(raw)
        return True

    @property
    def backlog_bytes(self) -> int:
        """How much of the journal waits to be converted."""
        return os.fstat(self._source).st_size - self._at

    def _convert(self, raw: bytes) -> None:
        self._at += len(raw)
        self._write(b"".join(self._lines.feed(self._parser.feed(raw))))

    def _convert_to_the_line(self, raw: bytes) -> None:
        """Line by line: the present part may become full in here, and the next one begins between two lines."""
        for line in raw.splitlines(keepends=True):
            if not self.parts.room_bytes and not self._skip:
                self._rotate()
            self._convert(line)

    def _rotate(self) -> None:
        at = self._at - self._parser.unread_bytes
        pending = self._lines.pending

        def record(inode: int) -> None:
            _write_mark(self.journal, Mark(at, 0, inode, pending))

        self.parts.rotate(record)
        self._log_at = 0

    def finish(self) -> None:
        """The container has ended: convert the rest, remove the journal. `close` is still due."""
        while self.advance():
            pass
        self._write(b"".join(self._lines.finish()))
        self.journal.unlink(missing_ok=True)
        _mark_path(self.journal).unlink(missing_ok=True)

    def mark(self) -> Mark | None:
        """Where the journal could be freed up to: a long way behind `start`."""
        at = self._at - self._parser.unread_bytes
        if at - self.start.journal < self._long_bytes or self._unwritten:
            return None
        return Mark(at, self._log_at, self.parts.inode, self._lines.pending, self.parts.rotations)

    def free_before(self, mark: Mark) -> None:
        """Everybody has read up to here: give the disk back. From now on reading begins at `mark`."""
        _write_mark(self.journal, mark)
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
            done = self.parts.write(self._unwritten)
            self._unwritten = self._unwritten[done:]

    @property
    def journal_fd(self) -> int:
        """The open journal, for readers to duplicate."""
        return self._source

    def close(self) -> None:
        """Stop here; the journal stays. Twice is fine."""
        if self._source >= 0:
            os.close(self._source)
        self._source = -1
        self.parts.close()


def _mark_path(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.at")


def _write_mark(journal: Path, mark: Mark) -> None:
    pending = [[one.stream, one.time.decode("ascii"), base64.b64encode(one.data).decode()] for one in mark.pending]
    found = {"journal": mark.journal, "log": mark.log, "inode": mark.inode, "pending": pending}
    durable.write_file_lazy(_mark_path(journal), json.dumps(found).encode())


def _read_mark(journal: Path) -> Mark:
    try:
        found = json.loads(_mark_path(journal).read_bytes())
        pending = tuple(
            Piece(int(stream), str(time).encode("ascii"), base64.b64decode(data))
            for stream, time, data in found["pending"]
        )
        return Mark(int(found["journal"]), int(found["log"]), int(found["inode"]), pending)
    except FileNotFoundError:
        return Mark(0, journal_offset(journal))
    except (ValueError, TypeError, KeyError) as error:  # a power cut took its content
        _LOG.warning("%s is damaged, the log is continued from the journal's start: %s", _mark_path(journal), error)
        return Mark(0, journal_offset(journal))
