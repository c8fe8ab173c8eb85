"""When a container is started again, and after what pause."""

import pytest

from lamina.containers.restart import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    STEADY_S,
    RestartPolicy,
    next_pause_s,
    restart_policy,
)


@pytest.mark.parametrize(
    ("policy", "exit_code", "restarts", "by_hand", "at_exit", "at_start"),
    [
        (RestartPolicy(), 1, 0, False, False, False),
        (RestartPolicy("always"), 0, 9, False, True, True),
        (RestartPolicy("always"), 137, 0, True, False, True),
        (RestartPolicy("unless-stopped"), 0, 0, False, True, True),
        (RestartPolicy("unless-stopped"), 0, 0, True, False, False),
        (RestartPolicy("on-failure"), 0, 0, False, False, False),
        (RestartPolicy("on-failure"), 1, 99, False, True, True),
        (RestartPolicy("on-failure"), 137, 0, True, False, False),
        (RestartPolicy("on-failure", 2), 1, 1, False, True, True),
        (RestartPolicy("on-failure", 2), 1, 2, False, False, False),
    ],
)
def test_each_policy_decides_as_documented(
    policy: RestartPolicy, exit_code: int, restarts: int, by_hand: bool, at_exit: bool, at_start: bool
) -> None:
    assert policy.after_exit(exit_code=exit_code, restarts=restarts, by_hand=by_hand) is at_exit
    assert policy.at_daemon_start(exit_code=exit_code, restarts=restarts, by_hand=by_hand) is at_start


def test_pauses_double_up_to_a_minute() -> None:
    pauses, at = [], 0.0
    for _ in range(12):
        at = next_pause_s(at, ran_s=0.0)
        pauses.append(at)
    assert pauses[:4] == [FIRST_PAUSE_S, 0.2, 0.4, 0.8]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_run_that_lasted_makes_the_next_pause_short_again() -> None:
    assert next_pause_s(51.2, ran_s=STEADY_S) == FIRST_PAUSE_S
    assert next_pause_s(51.2, ran_s=STEADY_S - 0.1) == LONGEST_PAUSE_S


def test_a_missing_policy_is_no_policy() -> None:
    assert restart_policy({}) == RestartPolicy("no", 0)
    assert restart_policy({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}) == RestartPolicy(
        "on-failure", 3
    )
