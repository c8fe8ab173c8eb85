"""The one place that reads the time (blocking colour: it touches the machine)."""

from __future__ import annotations

import calendar
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


def seconds_since(stamp: str, now_ns: int) -> float:
    """Seconds from a UTC time in RFC 3339 until `now_ns`, never negative; 0 for text that is no such time."""
    try:
        began = calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
        fraction = float("0." + (stamp[20:].rstrip("Z") or "0")) if stamp[19:20] == "." else 0.0
    except ValueError:
        return 0.0
    return max(0.0, now_ns / 1e9 - began - fraction)
