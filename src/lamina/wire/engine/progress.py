"""Progress of long work as Docker's JSON lines (pure).

Source: moby pkg/jsonmessage: `status`, `progressDetail`, `progress`, `id`, `stream`, `aux`; an error is the last line,
with `errorDetail` and `error`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from lamina.jsonvalue import JsonObject, JsonValue


@dataclass(frozen=True, slots=True)
class Progress:
    """One step that a person may look at.

    `id` names the thing (a short layer id), `status` what happens to it; `current` and `total` are bytes, `total` 0
    when unknown. `stream` is plain text (load, build); `aux` a value for programs (`{"ID": …}`).
    """

    status: str = ""
    id: str = ""
    current: int | None = None
    total: int = 0
    stream: str = ""
    aux: JsonValue = None


ProgressSink: TypeAlias = Callable[[Progress], None]
"""Called on the event loop; never blocks."""


def discard(_: Progress) -> None:
    """A sink for callers that nobody watches."""


def encode(step: Progress) -> JsonObject:
    """The JSON object of one step, as docker 20.10 and 28 read it."""
    line: JsonObject = {}
    if step.stream:
        line["stream"] = step.stream
    if step.status:
        line["status"] = step.status
    if step.current is not None:
        detail: JsonObject = {"current": step.current}
        if step.total:
            detail["total"] = step.total
        line["progressDetail"] = detail
        line["progress"] = _bar(step.current, step.total)
    elif step.status and step.id:
        line["progressDetail"] = {}
    if step.id:
        line["id"] = step.id
    if step.aux is not None:
        line["aux"] = step.aux
    return line


def encode_error(message: str) -> JsonObject:
    """The last line of a stream that failed."""
    return {"errorDetail": {"message": message}, "error": message}


def _bar(current: int, total: int) -> str:
    if total <= 0:
        return _human(current)
    filled = min(50, max(0, 50 * current // total))
    head = ">" if filled < 50 else ""
    return f"[{'=' * filled}{head}{' ' * (49 - filled if filled < 50 else 0)}]  {_human(current)}/{_human(total)}"


def _human(size: float) -> str:
    """Decimal units with four significant digits at most, as docker prints sizes."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.4g}{unit}"
        size /= 1000
    raise AssertionError("unreachable")
