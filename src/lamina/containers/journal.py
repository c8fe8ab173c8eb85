r"""The journal: what a container wrote, as its monitor records it, and Docker's json-file lines made from it (pure).

A journal line is `<RFC 3339 time> <stdout|stderr> <P|F> <bytes>\n`: F for bytes that end in a newline, P for bytes
that do not. Nothing is escaped, nothing is lost, so the bytes of each stream come back exactly.
The conversion to json-file lines is deterministic: after a crash it is done again from the start, and only what the
file lacks is written.

Source: conmon src/ctr_logging.c, write_k8s_log; moby daemon/logger/copier.go and jsonfilelog/jsonlog.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

STDOUT = 1
STDERR = 2
LINE_BYTES = 16384
"""Docker cuts lines of a json-file log here."""

_STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one stream, as they were read; `time` is the journal's own text (nine digits, `+00:00`)."""

    stream: int
    time: bytes
    data: bytes


class JournalParser:
    """Turns the bytes of a journal into pieces, however they are cut."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def unread_bytes(self) -> int:
        """How much of what was fed is no whole line yet."""
        return len(self._rest)

    def feed(self, raw: bytes) -> list[Piece]:
        """The pieces that are complete now. A broken line (a full disk cut it) is skipped."""
        lines = (self._rest + raw).split(b"\n")
        self._rest = lines.pop()
        pieces: list[Piece] = []
        for line in lines:
            # b"2026-11-23T21:20:47.688765110+00:00 stdout F hello"
            words = line.split(b" ", 3)
            stream = _STREAMS.get(words[1]) if len(words) == 4 else None
            if stream is None:
                continue
            data = words[3] + b"\n" if words[2] == b"F" else words[3]
            pieces.append(Piece(stream, words[0], data))
        return pieces


class JsonLines:
    """Turns pieces into the lines of Docker's json-file log."""

    def __init__(self, attrs: str = "") -> None:
        """`attrs` is the encoded value of the `attrs` key, empty for none."""
        self._pending = {STDOUT: b"", STDERR: b""}
        self._times = {STDOUT: b"", STDERR: b""}
        self._attrs = f',"attrs":{attrs}' if attrs else ""

    @property
    def pending(self) -> tuple[Piece, ...]:
        """The lines that wait for their end; `restore` takes them up again."""
        return tuple(Piece(stream, self._times[stream], data) for stream, data in self._pending.items() if data)

    def restore(self, pending: Iterable[Piece]) -> None:
        """Go on as the one that had these pending lines."""
        for piece in pending:
            self._pending[piece.stream] = piece.data
            self._times[piece.stream] = piece.time

    def feed(self, pieces: list[Piece]) -> list[bytes]:
        """The lines that are complete now: ended by a newline, or cut at 16 KiB."""
        found: list[bytes] = []
        for piece in pieces:
            stream = piece.stream
            data = piece.data
            pending = self._pending[stream]
            if pending:
                data = pending + data
            if data.endswith(b"\n"):
                if len(data) <= LINE_BYTES + 1:
                    found.append(self._line(stream, data, piece.time))
                else:
                    found.extend(self._line(stream, part, piece.time) for part in _cut(data))
                self._pending[stream] = b""
                continue
            whole = len(data) - len(data) % LINE_BYTES if len(data) > LINE_BYTES else 0
            found.extend(
                self._line(stream, data[at : at + LINE_BYTES], piece.time) for at in range(0, whole, LINE_BYTES)
            )
            self._pending[stream] = data[whole:]
            self._times[stream] = piece.time
        return found

    def finish(self) -> list[bytes]:
        """The unended lines, when the container has ended."""
        found = [self._line(stream, data, self._times[stream]) for stream, data in self._pending.items() if data]
        self._pending = {STDOUT: b"", STDERR: b""}
        return found

    def _line(self, stream: int, data: bytes, time: bytes) -> bytes:
        head = f'{{"log":{go_string(data)},"stream":"{_NAMES[stream]}"{self._attrs},"time":"'
        return f'{head}{go_time(time.decode("ascii", "replace"))}"}}\n'.encode()


def _cut(data: bytes) -> Iterator[bytes]:
    """16 KiB parts; a newline right behind a full part stays with it, as with Docker's reader buffer."""
    at = 0
    while at < len(data):
        part = data[at : at + LINE_BYTES]
        at += len(part)
        if data[at:] == b"\n":
            part += b"\n"
            at += 1
        yield part


_SPECIAL = re.compile(r'[\x00-\x1f"\\<>&\u2028\u2029\udc80-\udcff]')
_ESCAPES: dict[int, str] = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), 0x3C, 0x3E, 0x26, 0x2028, 0x2029)},
    **dict.fromkeys(range(0xDC80, 0xDD00), "\\ufffd"),
    ord('"'): '\\"',
    ord("\\"): "\\\\",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
}


def go_string(data: bytes) -> str:
    r"""A JSON string as Docker's jsonlog writes it: each byte that is not UTF-8 becomes `\ufffd`, tab is `\u0009`."""
    text = data.decode("utf-8", "surrogateescape")
    if text.endswith("\n") and _SPECIAL.search(text, 0, len(text) - 1) is None:
        return f'"{text[:-1]}\\n"'
    return f'"{text.translate(_ESCAPES)}"'


def go_time(time: str) -> str:
    """`…47.688765110+00:00` as Go prints UTC: `…47.68876511Z`."""
    stamp = time.removesuffix("+00:00").removesuffix("Z")
    if "." in stamp:
        stamp = stamp.rstrip("0").removesuffix(".")
    return stamp + "Z"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a container's log, as `logs` gives it. `time` is Go's RFC3339Nano; `data` is decoded bytes."""

    stream: int
    time: str
    data: bytes
    attrs: dict[str, str]


def parse_json_line(line: bytes) -> LogEntry | None:
    """One line of a json-file log; None for a line that is none (a crash cut it)."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    log, stream, time, attrs = found.get("log", ""), found.get("stream"), found.get("time", ""), found.get("attrs")
    if not isinstance(log, str) or not isinstance(time, str):
        return None
    named = {str(key): str(value) for key, value in attrs.items()} if isinstance(attrs, dict) else {}
    return LogEntry(STDERR if stream == "stderr" else STDOUT, time, log.encode("utf-8", "surrogatepass"), named)
