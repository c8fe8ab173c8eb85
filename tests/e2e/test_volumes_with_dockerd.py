"""The volume database between Lamina and a dockerd that we did not write."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina.errors import Conflict
from lamina.volumes.store import VolumeStore

DOCKERD, DOCKER = "/usr/sbin/dockerd", "/usr/bin/docker"
pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: socket names are limited to 108 bytes."""
    if not (os.path.exists(DOCKERD) and os.path.exists(DOCKER)):
        pytest.skip("no dockerd to compare with")
    found = Path(tempfile.mkdtemp(prefix="lv"))
    yield found
    shutil.rmtree(found)


@contextmanager
def dockerd(place: Path) -> Iterator[None]:
    """A dockerd on `place`/root. It ends, with its containerd, before the block is left."""
    argv = [DOCKERD, "--data-root", place / "root", "--exec-root", place / "run", "-H", f"unix://{place}/s"]
    argv += ["--pidfile", place / "pid", "--bridge", "none", "--iptables=false", "--storage-driver", "vfs"]
    with open(place / "log", "ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(
            [DOCKER, "-H", f"unix://{place}/s", "version"], capture_output=True, check=False
        ).returncode:
            assert process.poll() is None, (place / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (place / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        subprocess.run(["umount", "-q", str(place / "root")], check=False)


def docker(place: Path, *argv: str) -> str:
    done = subprocess.run([DOCKER, "-H", f"unix://{place}/s", *argv], capture_output=True, text=True, check=True)
    return done.stdout


def test_dockerd_reads_what_we_wrote_and_we_read_what_it_wrote(place: Path) -> None:
    ours = VolumeStore(place / "root" / "volumes")
    ours.open()
    for number in range(200):
        ours.create(f"volume{number}", labels={"number": str(number), "made-by": "us"})
    ours.create("tmp", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})
    ours.remove("volume17")
    ours.close()

    with dockerd(place):
        names = docker(place, "volume", "ls", "-q", "--filter", "label=made-by=us").split()
        assert len(names) == 199
        shown = json.loads(docker(place, "volume", "inspect", "volume123", "tmp"))
        assert shown[0]["Labels"] == {"number": "123", "made-by": "us"}
        assert shown[1]["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
        docker(place, "volume", "rm", "volume0")
        for number in range(60):
            docker(place, "volume", "create", "--label", f"theirs={number}", f"dockerd{number}")
        with pytest.raises(Conflict, match="in use by another daemon"):
            VolumeStore(place / "root" / "volumes").open()

    ours = VolumeStore(place / "root" / "volumes")
    assert ours.open() == []
    assert len(ours.list()) == 199 + 1 - 1 + 60
    assert ours.get("dockerd42").labels == {"theirs": "42"}
    assert ours.get("volume123").labels == {"number": "123", "made-by": "us"}
    for number in range(60):
        ours.remove(f"dockerd{number}")
    with pytest.raises(AssertionError, match="volume store metadata database"), dockerd(place):
        pass
    ours.create("last", labels={"x": "y"})
    ours.close()

    with dockerd(place):
        assert json.loads(docker(place, "volume", "inspect", "last"))[0]["Labels"] == {"x": "y"}
        assert len(docker(place, "volume", "ls", "-q").split()) == 200
