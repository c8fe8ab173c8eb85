"""Whether a container is started again when it ends, and after what pause (pure).

Source: moby restartmanager/restartmanager.go. One thing is better here: what somebody stopped by hand under
`on-failure` stays stopped when the daemon starts, although its exit code tells of the signal.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina.jsonvalue import JsonObject, integer, mapping, text

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 60.0
STEADY_S = 10.0
"""A run that lasted this long was a good one: the next pause is short again."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """`HostConfig.RestartPolicy`. `most_retries` is for `on-failure`; 0 means without end."""

    name: str = "no"
    most_retries: int = 0

    def after_exit(self, *, exit_code: int, restarts: int, by_hand: bool) -> bool:
        """Start it again now that it has ended? `by_hand`: somebody stopped or killed it; `restarts`: so far."""
        if by_hand:
            return False
        if self.name == "on-failure":
            return exit_code != 0 and (self.most_retries == 0 or restarts < self.most_retries)
        return self.name in {"always", "unless-stopped"}

    def at_daemon_start(self, *, exit_code: int, restarts: int, by_hand: bool) -> bool:
        """Start it when the daemon starts and finds it ended? `always` means it, also for what was stopped by hand."""
        return self.name == "always" or self.after_exit(exit_code=exit_code, restarts=restarts, by_hand=by_hand)


def restart_policy(host_config: JsonObject) -> RestartPolicy:
    """The policy that a container was created with, or updated to."""
    wanted = mapping(host_config, "RestartPolicy")
    return RestartPolicy(text(wanted, "Name") or "no", integer(wanted, "MaximumRetryCount"))


def next_pause_s(before_s: float, ran_s: float) -> float:
    """The pause before the next start: twice the one before (0: there was none), within bounds."""
    if ran_s >= STEADY_S or before_s <= 0:
        return FIRST_PAUSE_S
    return min(before_s * 2, LONGEST_PAUSE_S)
