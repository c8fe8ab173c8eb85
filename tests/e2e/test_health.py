"""Health checks as Docker's users know them."""

from __future__ import annotations

import json
import time

from tests.e2e import images
from tests.e2e.engines import Engine, until

HEALTH = "{{.State.Health.Status}}"


def _run(engine: Engine, check: str, *flags: str, name: str = "") -> str:
    named = ("--name", name) if name else ()
    quick = ("--health-interval", "200ms", "--health-retries", "2")
    return engine.out(
        "run", "-d", *named, "--health-cmd", check, *quick, *flags, "busybox", "sh", "-c", "touch /ok; sleep 600"
    )


def _becomes(engine: Engine, name: str, status: str) -> None:
    until(lambda: engine.out("inspect", "-f", HEALTH, name) == status, f"{name} did not become {status}")


def test_health_follows_the_check(engine: Engine) -> None:
    begin = str(int(time.time()) - 1)
    name = _run(engine, "cat /ok && echo fine", name="sick")
    assert engine.out("inspect", "-f", HEALTH, name) == "starting"
    assert "(health: starting)" in engine.out("ps", "--format", "{{.Status}}")
    _becomes(engine, name, "healthy")
    assert "(healthy)" in engine.out("ps", "--filter", "health=healthy", "--format", "{{.Status}}")
    last = json.loads(engine.out("inspect", name))[0]["State"]["Health"]["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (0, "fine\n")
    engine.docker("exec", name, "rm", "/ok")
    _becomes(engine, name, "unhealthy")
    health = json.loads(engine.out("inspect", name))[0]["State"]["Health"]
    assert health["FailingStreak"] >= 2
    assert health["Log"][-1]["ExitCode"] == 1
    assert "No such file" in health["Log"][-1]["Output"]
    assert len(health["Log"]) <= 5
    engine.docker("exec", name, "touch", "/ok")
    _becomes(engine, name, "healthy")
    told = engine.out(
        "events", "--since", begin, "--until", str(int(time.time()) + 1), "--filter", "container=sick",
        "--filter", "event=health_status", "--format", "{{.Action}}",
    ).splitlines()  # fmt: skip
    assert told == ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]


def test_failures_in_the_start_period_do_not_count(engine: Engine) -> None:
    # With an API that knows no start interval, probes still come every five seconds while the container starts.
    name = _run(engine, "false", "--health-start-period", "60s")
    until(lambda: len(json.loads(engine.out("inspect", name))[0]["State"]["Health"]["Log"]) >= 1, "it was not probed")
    assert engine.out("inspect", "-f", HEALTH + " {{.State.Health.FailingStreak}}", name) == "starting 0"


def test_a_check_that_hangs_is_killed_and_has_failed(engine: Engine) -> None:
    name = _run(engine, "sleep 1000", "--health-timeout", "300ms")
    _becomes(engine, name, "unhealthy")
    log = json.loads(engine.out("inspect", name))[0]["State"]["Health"]["Log"]
    assert log[0]["ExitCode"] == -1
    assert log[0]["Output"].startswith("Health check exceeded timeout (300ms)")
    engine.docker("pause", name)
    running = engine.out("top", name)
    assert running.count("sleep 1000") <= 2, "probes that were killed are still there"
    engine.docker("unpause", name)


def test_a_check_that_cannot_be_started_has_failed(engine: Engine) -> None:
    name = engine.out(
        "create", "--health-interval", "200ms", "--health-retries", "1", "--health-cmd", "x", "busybox", "sleep", "600"
    )
    engine.docker("start", name)
    _becomes(engine, name, "unhealthy")


def test_a_frozen_container_is_not_probed(engine: Engine) -> None:
    name = _run(engine, "true")
    _becomes(engine, name, "healthy")
    engine.docker("pause", name)
    before = engine.out("inspect", "-f", "{{json .State.Health.Log}}", name)
    time.sleep(1.0)
    assert engine.out("inspect", "-f", "{{json .State.Health.Log}}", name) == before
    engine.docker("unpause", name)
    until(lambda: engine.out("inspect", "-f", "{{json .State.Health.Log}}", name) != before, "probes did not go on")
    assert engine.out("inspect", "-f", HEALTH, name) == "healthy"


def test_the_image_s_check_is_used_and_can_be_switched_off(engine: Engine) -> None:
    checked = images.archive(
        "checked:1",
        [images.busybox_layer()],
        {"Cmd": ["sleep", "600"], "Env": ["PATH=/bin"],
         "Healthcheck": {"Test": ["CMD", "true"], "Interval": 200_000_000}},
    )  # fmt: skip
    engine.docker("load", stdin=checked)
    name = engine.out("run", "-d", "checked:1")
    _becomes(engine, name, "healthy")
    off = engine.out("run", "-d", "--no-healthcheck", "checked:1")
    assert "Health" not in json.loads(engine.out("inspect", off))[0]["State"]
    engine.docker("stop", "-t", "0", name)
    assert engine.out("inspect", "-f", HEALTH, name) == "unhealthy"


def test_probes_go_on_under_the_next_daemon(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    name = _run(engine, "cat /ok")
    _becomes(engine, name, "healthy")
    engine.kill()
    engine.start()
    assert engine.out("inspect", "-f", HEALTH, name) == "healthy"
    engine.docker("exec", name, "rm", "/ok")
    _becomes(engine, name, "unhealthy")
