"""Which connections of a server are idle, and how many may be (async package, pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Idle(Protocol):
    """A connection, as far as it matters here."""

    def force_close(self) -> None:
        """End at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may hold on to."""

    idle_connections: int = 1024
    """Connections without a request; beyond it the longest idle one is closed."""
    idle_s: float = 3600.0
    head_s: float = 60.0
    """From the first byte of a request head to its last."""
    linger_s: float = 2.0
    """How long the rest of a refused body is read and thrown away, so that the refusal reaches the client."""


class ConnectionKeeper:
    """Knows the connections of a server and which of them are idle, longest first."""

    def __init__(self, takes_over: Callable[[str, str], bool], limits: Limits) -> None:
        """`takes_over` tells of a method and target whether such a request may turn into a raw stream."""
        self.takes_over = takes_over
        self.limits = limits
        self._idle: dict[Idle, None] = {}

    def idle_begins(self, connection: Idle) -> None:
        self._idle.pop(connection, None)
        self._idle[connection] = None
        if len(self._idle) > self.limits.idle_connections:
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.force_close()

    def idle_ends(self, connection: Idle) -> None:
        self._idle.pop(connection, None)

    gone = idle_ends
