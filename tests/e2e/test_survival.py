"""A daemon that is killed loses nothing: containers live on, and their output, exit codes and removal with them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.engines import Engine


def _restart(engine: Engine) -> None:
    engine.kill()
    engine.start()


@pytest.mark.timeout(180)
def test_ten_containers_survive_kill_9_of_the_daemon(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    writer = engine.out(
        "run",
        "-d",
        "--name",
        "writer",
        "busybox",
        "sh",
        "-c",
        "i=0; while :; do i=$((i+1)); echo line $i; usleep 10000; done",
    )
    sleepers = [engine.out("run", "-d", "busybox", "sleep", "600") for _ in range(7)]
    ends = engine.out("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 2; echo bye; exit 11")
    removes = engine.out("run", "-d", "--rm", "--name", "removes", "busybox", "sh", "-c", "sleep 2; exit 0")
    pids = {name: engine.out("inspect", "-f", "{{.State.Pid}}", name) for name in [writer, *sleepers]}
    for _ in range(3):
        _restart(engine)
        time.sleep(0.5)
    engine.kill()
    time.sleep(2.5)  # both short ones end while no daemon is there
    engine.start()
    for name, pid in pids.items():
        assert engine.out("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", name) == f"true {pid}"
    assert engine.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", ends) == "exited 11"
    assert engine.out("logs", ends) == "bye"
    assert engine.docker("inspect", removes, check=False).returncode == 1
    assert engine.out("exec", writer, "echo", "still here") == "still here"
    engine.docker("stop", "-t", "0", writer)
    lines = engine.out("logs", writer).splitlines()
    assert len(lines) > 100
    assert lines == [f"line {n}" for n in range(1, len(lines) + 1)]
    follower = engine.out("run", "-d", "--rm", "busybox", "sleep", "0.5")
    deadline = time.monotonic() + 10
    while engine.docker("inspect", follower, check=False).returncode == 0:
        assert time.monotonic() < deadline


def test_stop_leaves_containers_running_and_start_finds_them(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    name = engine.out("run", "-d", "busybox", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
    assert engine.stop() == 0
    engine.start()
    assert engine.out("inspect", "-f", "{{.State.Running}}", name) == "true"
    engine.docker("stop", name)
    assert engine.out("inspect", "-f", "{{.State.ExitCode}}", name) == "7"


def test_a_second_daemon_on_the_same_root_is_refused(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    for kind in ("lamina", "dockerd"):
        second = Engine(kind=kind, data_root=engine.data_root)
        try:
            done = subprocess.run(second.argv(), capture_output=True, timeout=30, check=False)
            assert done.returncode != 0
            if kind == "lamina":
                assert b"in use" in done.stderr
        finally:
            if kind == "dockerd":  # it has mounted the root on itself before it looked at the lock
                subprocess.run(["umount", "-l", str(engine.data_root)], check=False)
            second.destroy()
    assert engine.out("info", "-f", "{{.Driver}}") == "overlay2"


def test_a_daemon_on_another_data_root_leaves_the_containers_of_an_exec_root_alone(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    name = engine.out("run", "-d", "--net", "none", "busybox", "sleep", "600")
    second = Engine()
    second.exec_root = engine.exec_root
    try:
        done = subprocess.run(second.argv(), capture_output=True, timeout=30, check=False)
        assert done.returncode == 1
        assert b"is in use by another daemon" in done.stderr
    finally:
        second.destroy()
    assert engine.out("exec", name, "echo", "alive") == "alive"


def test_a_root_that_dockerd_holds_is_refused(fresh_engine: Engine) -> None:
    fresh_engine.kind = "dockerd"
    fresh_engine.start()
    second = Engine(data_root=fresh_engine.data_root)
    done = subprocess.run(second.argv(), capture_output=True, timeout=30, check=False)
    assert done.returncode != 0
    assert b"in use" in done.stderr
    second.destroy()


def test_kill_during_load_leaves_a_store_that_works(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    big = images.archive(
        "big:1",
        [images.layer([(f"f{n}-{m}", "file", 0o644, b"%d" % n * 200_000) for m in range(40)]) for n in range(4)],
        {},
    )
    for delay in (0.02, 0.1, 0.25, 0.5):
        client = engine.popen("load")
        assert client.stdin is not None
        feeder = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys,shutil; shutil.copyfileobj(open(sys.argv[1],'rb'), sys.stdout.buffer)",
                _spool(engine, big),
            ],
            stdout=client.stdin,
        )
        time.sleep(delay)
        engine.kill()
        client.kill()
        client.wait()
        client.stdin.close()
        feeder.wait()
        engine.start()
        _nothing_half(engine)
    engine.docker("load", stdin=big)
    engine.docker("rmi", "big:1")
    _nothing_half(engine)


def _spool(engine: Engine, data: bytes) -> str:
    path = engine.home / "big.tar"
    if not path.exists():
        path.write_bytes(data)
    return str(path)


def _nothing_half(engine: Engine) -> None:
    """Every driver directory is named by a layer record, and the other way round."""
    root = Path(engine.data_root or "")
    layerdb = root / "image" / "overlay2" / "layerdb"
    recorded = {(d / "cache-id").read_text() for d in (layerdb / "sha256").glob("*") if d.is_dir()}
    kept = {d.name for d in (root / "overlay2").iterdir() if d.name != "l" and d.is_dir()}
    assert kept == recorded
    assert not list((layerdb / "tmp").glob("*")) if (layerdb / "tmp").exists() else True
    tags = (
        json.loads((root / "image" / "overlay2" / "repositories.json").read_text())["Repositories"]
        if (root / "image" / "overlay2" / "repositories.json").exists()
        else {}
    )
    for names in tags.values():
        for image_id in names.values():
            assert (root / "image" / "overlay2" / "imagedb" / "content" / "sha256" / image_id[7:]).exists()


def test_removing_a_container_removes_every_trace(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    before = _traces(engine)
    for flags in (["-d"], ["-d", "--net", "none"]):
        name = engine.out("run", *flags, "-v", "/anonymous", "busybox", "sleep", "600")
        engine.docker("exec", name, "true")
        engine.docker("rm", "-fv", name)
    deadline = time.monotonic() + 5
    while _traces(engine) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _traces(engine) == before


def _traces(engine: Engine) -> dict[str, list[str]]:
    root, run = Path(engine.data_root or ""), engine.exec_root
    return {
        "mounts": sorted(
            line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if str(engine.home) in line
        ),
        "layers": sorted(p.name for p in (root / "overlay2").iterdir()),
        "rw": sorted(p.name for p in (root / "image/overlay2/layerdb/mounts").glob("*")),
        "containers": sorted(p.name for p in (root / "containers").iterdir()),
        "volumes": sorted(p.name for p in (root / "volumes").iterdir()),
        "images": sorted(p.name for p in (root / "image/overlay2/imagedb").glob("*/sha256/*")),
        "links": sorted(
            name
            for name in subprocess.run(
                ["ls", "/sys/class/net"], capture_output=True, text=True, check=True
            ).stdout.split()
            if name.startswith("veth")
        ),
        "cgroups": sorted(str(p) for p in Path("/sys/fs/cgroup").glob("*/lamina/*") if p.is_dir()),
        "run": sorted(
            str(p.relative_to(run))
            for pattern in ("bundles/*", "execs/*", "netns/*", "runtime/*")
            for p in run.glob(pattern)
        ),
    }


@pytest.mark.timeout(180)
def test_kills_at_any_moment_leave_nothing_half(fresh_engine: Engine) -> None:
    """What was answered is there after the kill; what was not is there whole or not at all, and goes without a trace."""
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    before = _traces(engine)
    chance = random.Random(7)
    made: set[str] = set()
    for number in range(8):
        stop = threading.Event()
        busy = [
            threading.Thread(target=_make_and_remove, args=(engine, f"c{number}{n}-", made, stop)) for n in range(3)
        ]
        busy.append(threading.Thread(target=_commit_and_untag, args=(engine, f"i{number}-", stop)))
        for thread in busy:
            thread.start()
        time.sleep(chance.uniform(0.1, 0.8))
        stop.set()
        engine.kill()
        for thread in busy:
            thread.join()
        engine.start()
        assert made <= set(engine.out("ps", "-a", "--format", "{{.Names}}").split())
    assert "Traceback" not in engine.log.read_text()
    for name in engine.out("ps", "-aq").split():
        engine.docker("inspect", name)
        engine.docker("diff", name)
    engine.remove_containers()
    unwanted = set(engine.out("images", "-q").split()) - set(engine.out("images", "-q", "busybox").split())
    if unwanted:
        engine.docker("rmi", "-f", *unwanted)
    deadline = time.monotonic() + 5
    while _traces(engine) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _traces(engine) == before
    _nothing_half(engine)


def _make_and_remove(engine: Engine, prefix: str, made: set[str], stop: threading.Event) -> None:
    for number in range(1000):
        name = f"{prefix}{number}"
        steps: list[list[str]] = [
            ["create", "--name", name, "-v", "/anonymous", "busybox", "sleep", "600"],
            ["start", name],
            ["exec", name, "true"],
            ["rm", "-fv", name],
        ]
        for step in [*steps[:2], steps[3]] if number % 2 else steps:
            if step[0] == "rm":
                made.discard(name)
            if stop.is_set() or engine.docker(*step, check=False).returncode != 0:
                return
            if step[0] == "create":
                made.add(name)


def _commit_and_untag(engine: Engine, prefix: str, stop: threading.Event) -> None:
    for number in range(1000):
        name = f"{prefix}{number}"
        for step in (
            ["run", "--name", name, "--net", "none", "busybox", "sh", "-c", "head -c 300000 /dev/urandom > /data"],
            ["commit", name, name],
            ["rmi", name],
        ):
            if stop.is_set() or engine.docker(*step, check=False).returncode != 0:
                return
