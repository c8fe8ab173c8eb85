"""Logs that are cut into parts: bounded on disk, whole for who follows, and nothing lost with the daemon."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from pathlib import Path

import docker

from tests.e2e import images
from tests.e2e.engines import Engine

SMALL = ("--log-opt", "max-size=20k", "--log-opt", "max-file=3")


def _log_directory(engine: Engine, name: str) -> Path:
    return Path(engine.out("inspect", "-f", "{{.LogPath}}", name)).parent


def test_a_log_is_bounded_by_its_options_and_read_whole(engine: Engine) -> None:
    name = engine.out("run", "-d", *SMALL, "busybox", "seq", "20000")
    engine.docker("wait", name)
    directory = _log_directory(engine, name)
    sizes = {path.name.partition("-json")[2]: path.stat().st_size for path in directory.glob("*-json.log*")}
    assert sizes.keys() == {".log", ".log.1", ".log.2"}
    assert all(size < 22_000 for size in sizes.values())
    shown = [int(line) for line in engine.out("logs", name).splitlines()]
    assert shown == list(range(shown[0], 20001))
    assert engine.out("logs", "--tail", "400", name).splitlines() == [str(n) for n in range(19601, 20001)]


def test_parts_are_compressed_on_request_and_read_all_the_same(engine: Engine) -> None:
    name = engine.out("run", "-d", *SMALL, "--log-opt", "compress=true", "busybox", "seq", "3000")
    engine.docker("wait", name)
    packed = sorted(_log_directory(engine, name).glob("*.gz"))
    assert [path.name.rpartition("-json")[2] for path in packed] == [".log.1.gz", ".log.2.gz"]
    assert json.loads(gzip.decompress(packed[0].read_bytes()).splitlines()[0])["stream"] == "stdout"
    shown = [int(line) for line in engine.out("logs", name).splitlines()]
    assert shown == list(range(shown[0], 3001))


def test_who_follows_gets_every_line_over_all_rotations(engine: Engine) -> None:
    words = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; [ $((i % 20)) = 0 ] && usleep 5000; done"
    name = engine.out("run", "-d", *SMALL, "busybox", "sh", "-c", words)
    shown = engine.out("logs", "-f", name).splitlines()
    assert shown == [f"line {n}" for n in range(1, 3001)]


def test_a_killed_daemon_goes_on_in_the_right_part(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    options = ("--log-opt", "max-size=10k", "--log-opt", "max-file=200")
    words = "i=0; while [ $i -lt 6000 ]; do i=$((i+1)); echo line $i; [ $((i % 10)) = 0 ] && usleep 2000; done"
    name = engine.out("run", "-d", *options, "busybox", "sh", "-c", words)
    for _ in range(5):
        time.sleep(0.3)
        engine.kill()
        time.sleep(0.1)
        engine.start()
    engine.docker("wait", name)
    assert engine.out("logs", name).splitlines() == [f"line {n}" for n in range(1, 6001)]
    left = [path.name for path in _log_directory(engine, name).iterdir() if path.name.startswith("journal")]
    assert left == []


def test_attach_replays_what_was_put_aside(engine: Engine) -> None:
    name = engine.out("run", "-d", "--log-opt", "max-size=10k", "--log-opt", "max-file=50", "-i", "busybox", "sh", "-c",
                      "seq 2000; cat")  # fmt: skip
    deadline = time.monotonic() + 20
    while "2000" not in engine.out("logs", "--tail", "1", name):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with contextlib.closing(docker.DockerClient(base_url=engine.host, version="1.41")) as client:
        replayed = client.containers.get(name).attach(logs=True, stream=False)
    assert replayed.decode().split() == [str(n) for n in range(1, 2001)]


def test_lines_carry_labels_and_environment_on_request(engine: Engine) -> None:
    name = engine.out("run", "-d", "--label", "a=1", "-e", "COLOR=blue", "--log-opt", "labels=a", "--log-opt", "env=COLOR",
                      "busybox", "echo", "x")  # fmt: skip
    engine.docker("wait", name)
    assert engine.out("logs", "--details", name) == "COLOR=blue,a=1 x"


def test_options_without_sense_are_refused_at_create(engine: Engine) -> None:
    for option in ("max-size=big", "max-file=0", "what=1"):
        assert engine.docker("create", "--log-opt", option, "busybox", check=False).returncode == 1


def test_a_writer_that_is_faster_than_its_log_waits(engine: Engine) -> None:
    """The journal between container and log must not take the disk that the log's bound is to save."""
    words = "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 250000000"
    name = engine.out("run", "-d", "--log-opt", "max-size=5m", "--log-opt", "max-file=2", "busybox", "sh", "-c", words)
    directory = _log_directory(engine, name)
    peak = 0
    while engine.out("inspect", "-f", "{{.State.Running}}", name) == "true":
        with contextlib.suppress(FileNotFoundError):
            peak = max(peak, sum(path.stat().st_blocks * 512 for path in directory.glob("*j*")))
        time.sleep(0.1)
    assert peak < 150_000_000  # of 340 MB that the journal would take
    assert engine.out("inspect", "-f", "{{.State.ExitCode}}", name) == "0"
