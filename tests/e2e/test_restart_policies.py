"""Containers that are started again when they end, as Docker's users know it."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.e2e import images
from tests.e2e.engines import Engine, until

STATE = "{{.State.Status}} {{.State.Running}} {{.State.Restarting}}"


def _restarting(engine: Engine, name: str, *, at_least: int) -> None:
    """Until the container has been started again that often, and sits out a long enough pause to be looked at."""

    def waits() -> bool:
        count, state = engine.out("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", name).split()
        return int(count) >= at_least and state == "restarting"

    until(waits, f"{name} was not started again {at_least} times")


def test_on_failure_gives_up_after_its_retries(engine: Engine) -> None:
    name = engine.out("run", "-d", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo once; exit 3")
    until(lambda: engine.out("inspect", "-f", "{{.State.Status}}", name) == "exited", "it never gave up")
    found = json.loads(engine.out("inspect", name))[0]
    assert (found["RestartCount"], found["State"]["ExitCode"]) == (2, 3)
    assert engine.out("logs", name) == "once\nonce\nonce"


def test_on_failure_leaves_success_alone(engine: Engine) -> None:
    name = engine.out("run", "-d", "--restart", "on-failure", "busybox", "true")
    assert engine.out("wait", name) == "0"
    assert engine.out("inspect", "-f", STATE + " {{.RestartCount}}", name) == "exited false false 0"


def test_between_two_runs_docker_s_words_hold(engine: Engine) -> None:
    name = engine.out("run", "-d", "--restart", "always", "busybox", "false")
    _restarting(engine, name, at_least=3)
    assert engine.out("inspect", "-f", STATE + " {{.State.Pid}}", name) == "restarting true true 0"
    assert "Restarting (1)" in engine.out("ps", "--filter", "status=restarting", "--format", "{{.Status}}")
    for verb in (("pause", name), ("exec", name, "true")):
        refused = engine.docker(*verb, check=False)
        assert refused.returncode == 1
        assert b"is restarting, wait until the container is running" in refused.stderr
    assert b"restarting" in engine.docker("rm", name, check=False).stderr
    engine.docker("start", name)  # it counts as running
    engine.docker("stop", name)
    assert engine.out("inspect", "-f", STATE, name) == "exited false false"
    before = engine.out("inspect", "-f", "{{.RestartCount}}", name)
    time.sleep(1.0)
    assert engine.out("inspect", "-f", STATE + " {{.RestartCount}}", name) == f"exited false false {before}"


def test_kill_and_forced_removal_end_the_circle(engine: Engine) -> None:
    name = engine.out("run", "-d", "--restart", "always", "busybox", "false")
    _restarting(engine, name, at_least=2)
    engine.docker("kill", name)
    assert engine.out("inspect", "-f", STATE, name) == "exited false false"
    engine.docker("start", name)
    _restarting(engine, name, at_least=2)
    engine.docker("rm", "-f", name)
    assert engine.docker("inspect", name, check=False).returncode == 1


def test_a_start_by_hand_counts_from_zero(engine: Engine) -> None:
    name = engine.out("run", "-d", "--restart", "on-failure:1", "busybox", "false")
    for _ in range(2):
        until(lambda: engine.out("inspect", "-f", STATE, name) == "exited false false", "it never gave up")
        assert engine.out("inspect", "-f", "{{.RestartCount}}", name) == "1"
        engine.docker("start", name)


def test_the_policy_of_a_running_container_can_be_changed(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sleep", "600")
    engine.docker("update", "--restart", "on-failure:5", name)
    assert engine.out("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", name) == "on-failure"
    pid = int(engine.out("inspect", "-f", "{{.State.Pid}}", name))
    os.kill(pid, signal.SIGKILL)
    until(lambda: engine.out("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", name) == "1 running", "no restart")
    engine.docker("update", "--restart", "no", name)
    engine.docker("stop", "-t", "0", name)
    refused = engine.docker("update", "--restart", "sometimes", name, check=False)
    assert b"invalid restart policy" in refused.stderr


def test_who_waits_hears_of_each_end(engine: Engine) -> None:
    name = engine.out("create", "--restart", "always", "busybox", "sh", "-c", "sleep 0.3; exit 9")
    engine.docker("start", name)
    assert engine.out("wait", name) == "9"
    engine.docker("rm", "-f", name)


def test_the_daemon_starts_what_is_to_run(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    engine.docker("create", "--name", "never", "--restart", "always", "busybox", "sleep", "600")
    for name, policy in (("always", "always"), ("unless", "unless-stopped"), ("plain", "no")):
        engine.docker("run", "-d", "--name", name, "--restart", policy, "busybox", "sleep", "600")
    engine.docker("run", "-d", "--name", "circle", "--restart", "always", "busybox", "false")
    engine.docker("stop", "-t", "0", "always", "unless", "plain")
    _restarting(engine, "circle", at_least=2)
    before = int(engine.out("inspect", "-f", "{{.RestartCount}}", "circle"))
    engine.kill()
    engine.start()
    until(lambda: engine.out("inspect", "-f", "{{.State.Status}}", "always") == "running", "always did not start")
    until(lambda: int(engine.out("inspect", "-f", "{{.RestartCount}}", "circle")) > before, "the circle has ended")
    states = engine.out("inspect", "-f", "{{.State.Status}}", "never", "unless", "plain").split()
    assert states == ["created", "exited", "exited"]


def test_what_died_while_no_daemon_was_there_is_started_again(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    name = engine.out("run", "-d", "--restart", "on-failure", "busybox", "sh", "-c", "echo run; sleep 1; exit 4")
    engine.kill()
    time.sleep(1.5)
    engine.start()
    until(lambda: engine.out("inspect", "-f", "{{.RestartCount}}", name) >= "1", "nobody started it again")
    until(lambda: engine.out("logs", name).splitlines().count("run") >= 2, "the second run left no line")
