"""What a health check asks for, and what the results of probes mean."""

from lamina.containers.health import (
    HealthCheck,
    ProbeResult,
    after_end,
    after_probe,
    first_health,
    health_check,
    shown_output,
    status_of,
)
from lamina.jsonvalue import JsonObject

SECOND = 1_000_000_000


def config(*test: str, **times: int) -> JsonObject:
    return {"Healthcheck": {"Test": list(test), **times}}


def result(exit_code: int, running_s: float = 100.0) -> ProbeResult:
    return ProbeResult("2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z", running_s, exit_code, "words")


def run(check: HealthCheck, *results: ProbeResult) -> JsonObject:
    health: JsonObject = {"Status": "starting", "FailingStreak": 0, "Log": []}
    for one in results:
        health = after_probe(health, one, check)
    return health


def test_docker_s_defaults_hold_where_nothing_is_said() -> None:
    assert health_check(config("CMD", "true")) == HealthCheck(("true",), 30.0, 30.0, 0.0, 5.0, 3)


def test_a_shell_check_goes_through_the_image_s_shell() -> None:
    plain = health_check(config("CMD-SHELL", "a || b"))
    assert plain is not None
    assert plain.args == ("/bin/sh", "-c", "a || b")
    other = health_check({**config("CMD-SHELL", "a || b"), "Shell": ["/bin/bash", "-ec"]})
    assert other is not None
    assert other.args == ("/bin/bash", "-ec", "a || b")


def test_no_check_and_one_that_is_switched_off_are_none() -> None:
    assert health_check({}) is None
    assert health_check(config("NONE")) is None
    assert first_health(config("NONE")) is None
    assert status_of(None) == ""


def test_three_failures_in_a_row_make_unhealthy_and_one_success_heals() -> None:
    check = health_check(config("CMD", "x"))
    assert check is not None
    assert run(check, result(1), result(1))["Status"] == "starting"
    sick = run(check, result(1), result(1), result(-1))
    assert (sick["Status"], sick["FailingStreak"]) == ("unhealthy", 3)
    healed = after_probe(sick, result(0), check)
    assert (healed["Status"], healed["FailingStreak"]) == ("healthy", 0)
    assert run(check, result(0), result(1), result(1))["Status"] == "healthy"


def test_failures_while_starting_do_not_count_but_a_success_does() -> None:
    check = health_check(config("CMD", "x", StartPeriod=10 * SECOND, Retries=1))
    assert check is not None
    early = run(check, result(1, 1.0), result(1, 9.9))
    assert (early["Status"], early["FailingStreak"]) == ("starting", 0)
    assert after_probe(early, result(1, 10.0), check)["Status"] == "unhealthy"
    assert run(check, result(0, 1.0), result(1, 2.0))["Status"] == "unhealthy"


def test_probes_come_faster_while_the_container_starts() -> None:
    check = health_check(config("CMD", "x", Interval=60 * SECOND, StartPeriod=10 * SECOND, StartInterval=2 * SECOND))
    assert check is not None
    assert check.pause_s("starting", 1.0) == 2.0
    assert check.pause_s("starting", 10.0) == 60.0
    assert check.pause_s("healthy", 1.0) == 60.0


def test_the_last_five_results_are_kept() -> None:
    check = health_check(config("CMD", "x"))
    assert check is not None
    log = run(check, *(result(code) for code in range(7)))["Log"]
    assert isinstance(log, list)
    assert [entry["ExitCode"] for entry in log if isinstance(entry, dict)] == [2, 3, 4, 5, 6]


def test_a_container_that_has_ended_counts_as_unhealthy() -> None:
    check = health_check(config("CMD", "x"))
    assert check is not None
    assert status_of(after_end(run(check, result(0)))) == "unhealthy"
    assert after_end(None) is None


def test_long_output_is_cut() -> None:
    assert shown_output(b"short") == "short"
    assert shown_output(b"a" * 5000) == "a" * 4096 + "..."
