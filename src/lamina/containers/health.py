"""Health checks: what is asked for, and what a probe's result means (pure).

Source: moby daemon/health.go; the image specification's `Healthcheck`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina.jsonvalue import JsonObject, JsonValue, integer, mapping, objects, strings, text

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
MOST_OUTPUT_BYTES = 4096
TIMED_OUT = -1
"""The exit code of a probe that was killed for its length."""

_KEPT_RESULTS = 5
_NS = 1_000_000_000
_INTERVAL_S, _TIMEOUT_S, _START_INTERVAL_S, _RETRIES = 30.0, 30.0, 5.0, 3


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What a container wants: the command, and its times in seconds."""

    args: tuple[str, ...]
    interval_s: float
    timeout_s: float
    start_period_s: float
    start_interval_s: float
    retries: int

    def pause_s(self, status: str, running_s: float) -> float:
        """How long until the next probe of a container that has run for `running_s`."""
        if status == STARTING and running_s < self.start_period_s:
            return self.start_interval_s
        return self.interval_s


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One probe: when it began and ended (RFC 3339), after how many seconds of the run, and what came of it."""

    start: str
    end: str
    running_s: float
    exit_code: int
    output: str


def health_check(config: JsonObject) -> HealthCheck | None:
    """The check in a container's `Config`; None when there is none, or it was switched off."""
    wanted = mapping(config, "Healthcheck")
    test = strings(wanted, "Test")
    if len(test) < 2 or test[0] not in {"CMD", "CMD-SHELL"}:
        return None
    args = tuple(test[1:])
    if test[0] == "CMD-SHELL":
        args = (*(strings(config, "Shell") or ["/bin/sh", "-c"]), test[1])

    def seconds(key: str, default: float) -> float:
        return integer(wanted, key) / _NS or default

    return HealthCheck(
        args,
        interval_s=seconds("Interval", _INTERVAL_S),
        timeout_s=seconds("Timeout", _TIMEOUT_S),
        start_period_s=seconds("StartPeriod", 0.0),
        start_interval_s=seconds("StartInterval", _START_INTERVAL_S),
        retries=integer(wanted, "Retries") or _RETRIES,
    )


def first_health(config: JsonObject) -> JsonValue:
    """`State.Health` of a container that starts; None without a check."""
    return {"Status": STARTING, "FailingStreak": 0, "Log": []} if health_check(config) else None


def status_of(health: JsonValue) -> str:
    """starting, healthy, unhealthy, or empty when there is no check."""
    return text(health, "Status") if isinstance(health, dict) else ""


def after_probe(health: JsonObject, result: ProbeResult, check: HealthCheck) -> JsonObject:
    """`State.Health` after one more probe. Failures while the container may still be starting do not count."""
    status, streak = text(health, "Status"), integer(health, "FailingStreak")
    if result.exit_code == 0:
        status, streak = HEALTHY, 0
    elif status != STARTING or result.running_s >= check.start_period_s:
        streak += 1
        status = UNHEALTHY if streak >= check.retries else status
    entry: JsonObject = {
        "Start": result.start,
        "End": result.end,
        "ExitCode": result.exit_code,
        "Output": result.output,
    }
    log: list[JsonValue] = [*objects(health, "Log"), entry]
    return {"Status": status, "FailingStreak": streak, "Log": log[-_KEPT_RESULTS:]}


def after_end(health: JsonValue) -> JsonValue:
    """`State.Health` once the run is over: nobody looks any more, and Docker calls that unhealthy."""
    return {**health, "Status": UNHEALTHY} if isinstance(health, dict) else health


def shown_output(data: bytes) -> str:
    """What a probe wrote, as its result keeps it."""
    if len(data) > MOST_OUTPUT_BYTES:
        return data[:MOST_OUTPUT_BYTES].decode(errors="replace") + "..."
    return data.decode(errors="replace")
