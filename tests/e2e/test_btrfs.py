"""The whole engine on btrfs, and what a dockerd does with layers that we made read-only."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.engines import Engine
from tests.e2e.grounds import data_root_for

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def data_root() -> Iterator[Path]:
    with data_root_for("btrfs") as found:
        assert found is not None
        yield found


@pytest.fixture
def engine(data_root: Path) -> Iterator[Engine]:
    found = Engine(storage_driver="btrfs", data_root=data_root)
    try:
        found.start()
        found.docker("load", stdin=images.busybox())
        yield found
    finally:
        found.destroy()


def subvolumes(data_root: Path) -> list[str]:
    return os.listdir(data_root / "btrfs/subvolumes")


def test_a_container_lives_its_whole_life(engine: Engine, data_root: Path, tmp_path: Path) -> None:
    assert engine.out("info", "-f", "{{.Driver}}") == "btrfs"
    engine.docker(
        "run", "-d", "--name", "box", "busybox", "sh", "-c", "echo mine > /file; rm /etc/group; exec sleep 1000"
    )
    engine.docker("exec", "box", "sh", "-c", "until test -e /file && ! test -e /etc/group; do :; done")
    assert sorted(engine.out("diff", "box").splitlines()) == ["A /file", "C /etc", "D /etc/group"]
    (tmp_path / "in").write_text("copied\n")
    engine.docker("cp", os.fspath(tmp_path / "in"), "box:/root/in")
    engine.docker("cp", "box:/file", os.fspath(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine\n"
    engine.docker("commit", "box", "committed")
    assert engine.out("run", "--rm", "committed", "cat", "/file", "/root/in") == "mine\ncopied"
    assert engine.docker("run", "--rm", "committed", "test", "-e", "/etc/group", check=False).returncode == 1
    described = json.loads(engine.out("inspect", "-f", "{{json .GraphDriver}}", "box"))
    assert (described["Name"], described["Data"] or None) == ("btrfs", None)
    engine.docker("rm", "-f", "box")
    engine.docker("rmi", "committed", "busybox")
    assert subvolumes(data_root) == []


def test_a_container_runs_on_while_the_daemon_is_killed(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo 1 > /f; exec sleep 1000")
    process = engine.out("inspect", "-f", "{{.State.Pid}}", "box")
    engine.kill()
    engine.start()
    assert engine.out("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "box") == f"true {process}"
    assert engine.out("exec", "box", "cat", "/f") == "1"
    engine.docker("rm", "-f", "box")


def test_a_process_inside_meets_the_limit(engine: Engine, data_root: Path) -> None:
    command = ("dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=30")
    engine.docker("create", "--name", "box", "--storage-opt", "size=20m", "busybox", *command)
    done = engine.docker("start", "-a", "box", check=False)
    assert done.returncode == 1
    assert b"quota exceeded" in (done.stdout + done.stderr).lower()
    engine.stop()
    subprocess.run(["btrfs", "quota", "disable", data_root], check=True)
    engine.start()
    assert b"quota exceeded" in engine.docker("start", "-a", "box", check=False).stderr.lower()
    engine.docker("rm", "box")
    assert os.listdir(data_root / "btrfs/quotas") == []


def test_dockerd_works_on_layers_that_we_made_read_only(engine: Engine, data_root: Path) -> None:
    engine.docker("run", "--name", "ours", "--storage-opt", "size=50m", "busybox", "touch", "/ours")
    engine.docker("commit", "ours", "committed")
    engine.stop()
    theirs = Engine(
        kind="dockerd", storage_driver="btrfs", data_root=data_root,
        arguments=("--bridge=none", "--iptables=false", "--ip-masq=false"),
    )  # fmt: skip
    try:
        theirs.start()
        theirs.docker(
            "run", "--name", "theirs", "--net", "none", "committed", "sh", "-c", "test -e /ours && touch /theirs"
        )
        assert theirs.out("diff", "theirs") == "A /theirs"
        assert theirs.out("diff", "ours") == "A /ours"
        theirs.docker("commit", "theirs", "again")
        assert theirs.out("run", "--rm", "--net", "none", "again", "ls", "/ours", "/theirs") == "/ours\n/theirs"
        theirs.docker("rm", "ours", "theirs")
        theirs.docker("rmi", "again", "committed", "busybox")
        assert subvolumes(data_root) == []
    finally:
        theirs.destroy()
