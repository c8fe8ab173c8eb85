"""The flags of a health check, and Go's durations that they take."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from lamina.errors import InvalidArgument

FLAGS: tuple[Callable[..., Any], ...] = (
    click.option("--health-cmd", metavar="COMMAND", help="What tells whether the container is healthy."),
    click.option("--health-interval", metavar="DURATION", help="Between two probes (30s)."),
    click.option("--health-retries", type=int, help="Failures in a row until it counts as unhealthy (3)."),
    click.option("--health-start-interval", metavar="DURATION", help="Between two probes while it starts (5s)."),
    click.option("--health-start-period", metavar="DURATION", help="How long failures do not count (0s)."),
    click.option("--health-timeout", metavar="DURATION", help="How long one probe may take (30s)."),
    click.option("--no-healthcheck", is_flag=True, help="Without the image's health check."),
)

_UNITS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def nanoseconds(flag: str, value: str | None) -> int:
    """A duration as Go writes it: 1m30s, 1.5h, 250ms; 0 for none.

    Raises:
        InvalidArgument: it is none.
    """
    if not value or value == "0":
        return 0
    parts = _PART.findall(value)
    if "".join(number + unit for number, unit in parts) != value:
        raise InvalidArgument(
            f'invalid argument "{value}" for "{flag}" flag: invalid duration', hint="write 30s or 1m30s"
        )
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def health_check(flags: dict[str, Any]) -> dict[str, Any] | None:
    """`Healthcheck` of a create request; None when no flag asks for anything."""
    times = {
        "Interval": nanoseconds("--health-interval", flags["health_interval"]),
        "Timeout": nanoseconds("--health-timeout", flags["health_timeout"]),
        "StartPeriod": nanoseconds("--health-start-period", flags["health_start_period"]),
        "StartInterval": nanoseconds("--health-start-interval", flags["health_start_interval"]),
        "Retries": flags["health_retries"] or 0,
    }
    asked = {key: value for key, value in times.items() if value}
    if flags["no_healthcheck"]:
        if asked or flags["health_cmd"]:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if flags["health_cmd"]:
        asked["Test"] = ["CMD-SHELL", flags["health_cmd"]]
    return asked or None
