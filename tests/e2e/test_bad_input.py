"""What bad input gets: a clear error each time, the daemon up, its memory bounded, the store unharmed."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import resource
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.engines import Engine


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self.path))


@pytest.fixture(autouse=True)
def unharmed(engine: Engine) -> Iterator[None]:
    """After every one of these the daemon is the same process, answers, works, and has not grown."""
    assert engine.process is not None
    pid = engine.process.pid
    yield
    assert engine.process.poll() is None
    assert engine.out("run", "--rm", "--net", "none", "busybox", "echo", "fine") == "fine"
    if engine.kind == "lamina":
        peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
        assert int(peak.split()[1]) < 300_000


def _load(engine: Engine, layers: list[bytes]) -> subprocess.CompletedProcess[bytes]:
    before = engine.out("images", "-aq")
    done = engine.docker("load", stdin=images.archive("bad:1", layers, {}), check=False)
    if b"Loaded" not in done.stdout:
        assert engine.out("images", "-aq") == before
    return done


def _tar(*members: tuple[str, bytes, str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, target, data in members:
            header = tarfile.TarInfo(name)
            header.type, header.linkname, header.size, header.mode = kind, target, len(data), 0o755
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        [("../outside", tarfile.REGTYPE, "", b"x")],
        [("a/../../outside", tarfile.REGTYPE, "", b"x")],
        [("hard", tarfile.LNKTYPE, "../../../../etc/hostname", b"")],
        [("link", tarfile.SYMTYPE, "/tmp", b""), ("link/outside", tarfile.REGTYPE, "", b"x")],
        [("link", tarfile.SYMTYPE, "../../../../../../tmp", b""), ("link/outside", tarfile.REGTYPE, "", b"x")],
    ],
    ids=["dotdot", "dotdot inside", "hard link out", "through absolute link", "through relative link"],
)
def test_a_layer_cannot_leave_its_root(engine: Engine, members: list[tuple[str, bytes, str, bytes]]) -> None:
    done = _load(engine, [images.busybox_layer(), _tar(*members)])
    assert not Path("/tmp/outside").exists()
    assert not list(Path(engine.data_root or "").glob("**/../outside"))
    if b"Loaded" in done.stdout:  # resolved inside the root instead of refused
        engine.docker("rmi", "bad:1")


def test_a_config_that_is_not_json_is_refused(engine: Engine) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (
            ("c.json", b"no json"),
            ("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["bad:1"], "Layers": []}]).encode()),
        ):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    done = engine.docker("load", stdin=buffer.getvalue(), check=False)
    assert done.returncode == 1
    assert done.stderr


@pytest.mark.parametrize("config", ["../../../etc/passwd", "/etc/passwd", ".."])
def test_archive_names_do_not_leave_the_archive(engine: Engine, config: str) -> None:
    data = json.dumps([{"Config": config, "RepoTags": ["bad:1"], "Layers": []}]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo("manifest.json")
        header.size = len(data)
        tar.addfile(header, io.BytesIO(data))
    done = engine.docker("load", stdin=buffer.getvalue(), check=False)
    assert done.returncode == 1
    assert b"root:" not in done.stderr


@pytest.mark.parametrize("reference", ["UPPER", "a//b", "a:b:c:d", "a@sha256:12", "x" * 300])
def test_what_is_no_reference_is_refused(engine: Engine, reference: str) -> None:
    done = engine.docker("tag", "busybox", reference, check=False)
    assert done.returncode == 1
    assert (
        b"invalid reference format" in done.stderr
        or b"refusing to create" in done.stderr
        or b"must not be" in done.stderr
    )


def test_a_body_of_a_terabyte_is_refused_at_once(engine: Engine) -> None:
    connection = UnixConnection(engine.socket)
    connection.putrequest("POST", "/containers/create")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    with contextlib.suppress(BrokenPipeError):
        connection.send(b"{" + b" " * 65536)
    answer = connection.getresponse()
    assert answer.status in (400, 413)
    assert "message" in json.loads(answer.read())


def test_json_nested_too_deeply_is_refused(engine: Engine) -> None:
    connection = UnixConnection(engine.socket)
    connection.request(
        "POST", "/containers/create", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    assert answer.status == 400
    assert "message" in json.loads(answer.read())


@pytest.mark.timeout(180)
def test_ten_thousand_idle_connections(engine: Engine) -> None:
    script = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held = []
for n in range(10000):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); held.append(s)
print("held", flush=True)
sys.stdin.read()
"""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 10_200:
        pytest.skip("fewer than 10,200 descriptors are allowed here")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(engine.socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as crowd:
        assert crowd.stdout is not None
        assert crowd.stdout.readline() == b"held\n"
        assert engine.out("run", "--rm", "--net", "none", "busybox", "echo", "through") == "through"
        crowd.kill()


def test_an_unknown_driver_is_refused_by_name(engine: Engine) -> None:
    done = _daemon_fails(Engine(storage_driver="nosuch"))
    assert "nosuch" in done
    assert "overlay2" in done


def test_a_data_root_on_a_full_disk_is_told(engine: Engine, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", tmp_path], check=True)
    try:
        (tmp_path / "filler").write_bytes(b"x" * 500_000)
        assert "full" in _daemon_fails(Engine(data_root=tmp_path / "d")).lower()
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_disk_that_fills_up_during_load_is_told_and_nothing_is_left(engine: Engine, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], check=True)
    small = Engine(storage_driver="vfs", data_root=tmp_path / "d")
    try:
        small.start()
        done = small.docker(
            "load",
            stdin=images.archive("big:1", [images.layer([("big", "file", 0o644, os.urandom(12_000_000))])], {}),
            check=False,
        )
        assert done.returncode == 1
        assert b"no space left" in done.stderr.lower() or b"full" in done.stderr.lower()
        assert small.out("images", "-aq") == ""
        assert not list((tmp_path / "d" / "vfs" / "dir").iterdir())
    finally:
        small.destroy()
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_missing_runtime_names_the_package(engine: Engine) -> None:
    missing = Engine()
    missing.arguments = ["--default-runtime=nosuchruntime"]
    assert "nosuchruntime" in _daemon_fails(missing)


def _daemon_fails(engine: Engine) -> str:
    try:
        done = subprocess.run(engine.argv(), capture_output=True, timeout=30, check=False)
        assert done.returncode != 0
        return done.stderr.decode()
    finally:
        engine.destroy()


def test_a_decompression_bomb_is_bounded(engine: Engine) -> None:
    import gzip

    bomb = gzip.compress(gzip.compress(bytes(256 << 20)))
    done = engine.docker("import", "-", "bomb:1", stdin=bomb, check=False, timeout_s=120)
    assert done.returncode != 0
    assert engine.out("images", "-q", "bomb") == ""
