"""The one place that reads the time (blocking colour: it touches the machine)."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What needs the time is given one of these; tests give a fake."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""


class SystemClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()


ZERO_TIME = "0001-01-01T00:00:00Z"
"""How Go prints the zero time: Docker's "never"."""


def rfc3339(now_ns: int) -> str:
    """A time as Go prints it (RFC3339Nano): UTC, trailing zeros of the fraction dropped."""
    seconds, nanos = divmod(now_ns, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    return f"{stamp}{fraction}Z"
