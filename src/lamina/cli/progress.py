"""Progress messages as bars on a terminal, or as plain lines: one per change of state (blocking)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from lamina.cli.tables import harmless


def show_progress(messages: Iterator[dict[str, Any]], out: IO[str]) -> None:
    """Show a stream of Docker's progress messages until it ends."""
    if out.isatty():
        _bars(messages, out)
    else:
        _lines(messages, out)


def _lines(messages: Iterator[dict[str, Any]], out: IO[str]) -> None:
    last: dict[str, str] = {}
    for message in messages:
        text = _text(message)
        name = str(message.get("id", ""))
        if text is None or (name and last.get(name) == text):
            continue
        last[name] = text
        out.write(f"{harmless(name)}: {text}\n" if name else f"{text}\n")
        out.flush()


def _text(message: dict[str, Any]) -> str | None:
    if "stream" in message:
        return harmless(str(message["stream"]).rstrip("\n"))
    return harmless(str(message["status"])) if "status" in message else None


def _bars(messages: Iterator[dict[str, Any]], out: IO[str]) -> None:
    # Imported here alone: rich costs more than most commands take.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    console = Console(file=out, highlight=False)
    columns = (
        TextColumn("{task.fields[name]}", markup=False),
        TextColumn("{task.description:<20}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        tasks: dict[str, TaskID] = {}
        for message in messages:
            text = _text(message)
            name = str(message.get("id", ""))
            if text is None:
                continue
            detail = message.get("progressDetail")
            if not name or detail is None or text.startswith("Pulling from"):
                progress.console.print(f"{harmless(name)}: {text}" if name else text, markup=False)
                continue
            if name not in tasks:
                tasks[name] = progress.add_task(text, total=None, name=harmless(name), start=True)
            _advance(progress, tasks[name], text, detail)


def _advance(progress: Any, task: Any, text: str, detail: dict[str, Any]) -> None:
    total = detail.get("total")
    if "current" in detail:
        progress.update(task, description=text, completed=detail["current"], total=total or None)
        return
    found = progress.tasks[progress.task_ids.index(task)]
    done = text in ("Pull complete", "Already exists", "Pushed", "Layer already exists", "Download complete")
    total = found.total or (1 if done else None)
    progress.update(task, description=text, completed=total if done else found.completed, total=total)
