"""A migration as bars on a terminal, or as plain lines: one for each thing that is copied."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import IO, Any

from lamina.cli.tables import harmless, size


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}

    def begin(self, name: str, total_bytes: int) -> None:
        """Nothing is said before it is there."""
        with self._lock:
            self._done[name] = total_bytes

    def advance(self, name: str, done_bytes: int) -> None:
        """Nothing: a log has no use for bars."""

    def end(self, name: str, outcome: str) -> None:
        with self._lock:
            self._write(f"{name}: {outcome} {size(self._done.pop(name, 0))}")

    def say(self, text: str) -> None:
        with self._lock:
            self._write(text)

    def _write(self, text: str) -> None:
        self._out.write(f"{harmless(text)}\n")
        self._out.flush()


class Bars:
    """A bar for everything that is being copied, and one for all of it."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._lock = threading.Lock()
        self._tasks: dict[str, Any] = {}
        self._all = shown.add_task("copied", total=None)
        self._copied = 0

    def begin(self, name: str, total_bytes: int) -> None:
        with self._lock:
            self._tasks[name] = self._shown.add_task(harmless(name), total=total_bytes or None)

    def advance(self, name: str, done_bytes: int) -> None:
        with self._lock:
            self._copied += done_bytes
            self._shown.advance(self._tasks[name], done_bytes)
            self._shown.update(self._all, completed=self._copied)

    def end(self, name: str, outcome: str) -> None:
        del outcome
        with self._lock:
            self._shown.remove_task(self._tasks.pop(name))

    def say(self, text: str) -> None:
        self._shown.console.print(harmless(text), markup=False)


@contextlib.contextmanager
def watching(out: IO[str]) -> Iterator[Lines | Bars]:
    """Whoever tells about a migration, for as long as it lasts."""
    if not out.isatty():
        yield Lines(out)
        return
    # Imported here alone: rich costs more than most commands take.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(file=out, highlight=False), expand=True, transient=True) as shown:
        yield Bars(shown)
