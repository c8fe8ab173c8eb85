"""The health flags of run and create."""

from typing import Any

import pytest

from lamina.cli.health import health_check, nanoseconds
from lamina.errors import InvalidArgument

NOTHING: dict[str, Any] = {
    "health_cmd": None, "health_interval": None, "health_retries": None, "health_start_interval": None,
    "health_start_period": None, "health_timeout": None, "no_healthcheck": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, 0), ("0", 0), ("30s", 30 * 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("250ms", 250 * 10**6)],
)
def test_durations_are_read_as_go_writes_them(text: str | None, expected: int) -> None:
    assert nanoseconds("--health-interval", text) == expected


@pytest.mark.parametrize("text", ["30", "s", "-1s", "1 s", "1s2", "eternity"])
def test_what_is_no_duration_is_refused_with_its_flag(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--health-timeout"):
        nanoseconds("--health-timeout", text)


def test_a_command_goes_through_the_shell_and_no_flag_asks_for_nothing() -> None:
    assert health_check(NOTHING) is None
    assert health_check({**NOTHING, "health_cmd": "a b", "health_retries": 2}) == {
        "Test": ["CMD-SHELL", "a b"],
        "Retries": 2,
    }
    assert health_check({**NOTHING, "health_interval": "1s"}) == {"Interval": 10**9}


def test_switching_off_excludes_the_other_flags() -> None:
    assert health_check({**NOTHING, "no_healthcheck": True}) == {"Test": ["NONE"]}
    with pytest.raises(InvalidArgument, match="conflicts"):
        health_check({**NOTHING, "no_healthcheck": True, "health_cmd": "x"})
