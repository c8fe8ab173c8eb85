"""What clients cannot do to the server: smuggle, dawdle, crowd, or speak for a web page."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.api.app import build_app
from lamina.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from lamina.http.server import HttpServer, Limits
from lamina.http.sockets import bind_tcp, bind_unix, inherited, mutual_tls
from tests.api.fakes import FakeEngine
from tests.api.serving import Wire, ask, connect, request, serving

ROOT = Path(__file__).parents[2]


def run(scenario) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /commit HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /commit HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST /commit HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400),
        (b"POST /commit HTTP/1.1\r\nContent-Length: +4\r\n\r\nabcd", 400),
        (b"POST /commit HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\nabcd", 400),
        (b"POST /commit HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"POST /commit HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        (b"POST /commit HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /commit HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST /commit HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST /commit HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
        (b"POST /commit HTTP/1.1\r\nA: b\r\n Transfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /commit HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;\r\nabc\r\n\r\n0\r\n\r\nX\r\n", 400),
        (b"POST /commit HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"POST /commit HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /_ping\r\n\r\n", 400),
        (b"GET  /_ping HTTP/1.1\r\n\r\n", 400),
        (b"GET /_ping HTTP/2.0\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"a" * (200 << 10) + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50000 + b"\r\n", 431),
    ],
)
def test_ambiguous_and_broken_requests_are_refused_and_the_connection_ends(head, status):
    async def scenario():
        async with serving(FakeEngine().services()) as path, await connect(path) as wire:
            with contextlib.suppress(ConnectionError):  # it may be over before everything is sent
                await wire.send(head + request("GET", "/info"))
            got = await wire.answer()
            assert got.status in {status, 400}
            assert got.status == status or b"chunk" in head
            assert got.message
            with contextlib.suppress(ConnectionResetError):  # what it had not read is gone with it
                assert await wire.reader.read() == b""

    run(scenario())


def test_an_upgrade_to_h2c_is_ignored():
    async def scenario():
        async with serving(FakeEngine().services()) as path:
            got = await ask(path, "GET", "/_ping", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c")
            assert (got.status, got.body) == (200, b"OK")

    run(scenario())


def test_a_head_has_to_arrive_in_time():
    async def scenario():
        async with serving(FakeEngine().services(), Limits(head_s=0.2)) as path, await connect(path) as wire:
            await wire.send(b"GET /_ping HTTP/1.1\r\n")
            got = await wire.answer()
            assert got.status == 408
            assert await wire.reader.read() == b""

    run(scenario())


def test_idle_connections_end_after_a_while_and_busy_ones_do_not():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services(), Limits(idle_s=0.3)) as path:
            idle, busy = await connect(path), await connect(path)
            await busy.send(request("GET", "/events"))
            await busy.head()
            assert await idle.reader.read() == b""
            engine.events.publish("daemon", "reload", "x")
            assert b"reload" in await busy.chunk()
            await busy.close()
            await idle.close()

    run(scenario())


def test_the_longest_idle_connection_makes_room():
    async def scenario():
        async with serving(FakeEngine().services(), Limits(idle_connections=3)) as path:
            wires = [await connect(path) for _ in range(3)]
            for wire in wires:
                assert (await wire.ask("GET", "/_ping")).status == 200
            assert (await wires[0].ask("GET", "/_ping")).status == 200  # so the second is the longest idle now
            newcomer = await connect(path)
            assert await wires[1].reader.read() == b""
            for wire in (wires[0], wires[2], newcomer):
                assert (await wire.ask("GET", "/_ping")).status == 200
                await wire.close()
            await wires[1].close()

    run(scenario())


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 10_200:
        pytest.skip("fewer than 10,200 descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_ten_thousand_idle_connections_leave_the_server_responsive_and_small(tmp_path):
    path = tmp_path / "s"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.api.standalone", path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    crowd: list[socket.socket] = []
    try:
        assert server.stdout.readline() == b"ready\n"
        before = rss_bytes(server.pid)
        for number in range(10_000):
            sock = socket.socket(socket.AF_UNIX)
            crowd.append(sock)
            sock.connect(os.fspath(path))
            if number % 2:
                with contextlib.suppress(BrokenPipeError):
                    sock.send(b"GET /_ping HTTP/1.1\r\nX-Slow: ")
        asked = time.monotonic()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(os.fspath(path))  # with a timeout it would not wait for the crowd before it
            sock.settimeout(10)
            sock.send(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")
        assert time.monotonic() - asked < 2
        assert len(os.listdir(f"/proc/{server.pid}/fd")) < 1100
        assert rss_bytes(server.pid) - before < 64 << 20
    finally:
        for sock in crowd:
            sock.close()
        server.stdin.close()
        assert server.wait(20) == 0
        server.stdout.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:2375"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:2375"}, 200),
        ({"Host": "api.moby.localhost"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:2375"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({}, 400),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
def test_over_tcp_only_this_host_is_meant_and_no_page_speaks(headers, status):
    async def scenario():
        server = HttpServer(build_app(FakeEngine().services(), "0.test"))
        sock = bind_tcp("127.0.0.1", 0)
        port = sock.getsockname()[1]
        await server.listen(sock)
        async with Wire(*await asyncio.open_connection("127.0.0.1", port)) as wire:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            await wire.send(f"GET /version HTTP/1.1\r\n{lines}\r\n".encode())
            assert (await wire.answer()).status == status
        await server.close(1)

    run(scenario())


def test_over_a_unix_socket_any_host_will_do():
    async def scenario():
        async with serving(FakeEngine().services()) as path:
            assert (await ask(path, "GET", "/version", Host="anything")).status == 200

    run(scenario())


def test_plain_tcp_is_for_loopback_only():
    for host in ("0.0.0.0", "::"):
        with pytest.raises(PermissionDenied, match="without TLS"):
            bind_tcp(host, 0)


def test_mutual_tls_admits_only_clients_with_a_certificate(tmp_path):
    make_certificates(tmp_path)

    async def scenario():
        server = HttpServer(build_app(FakeEngine().services(), "0.test"))
        context = mutual_tls(tmp_path / "ca.pem", tmp_path / "server.pem", tmp_path / "server.key")
        sock = bind_tcp("127.0.0.1", 0, tls=context)
        port = sock.getsockname()[1]
        await server.listen(sock, context)
        client = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        client.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        async with Wire(*await asyncio.open_connection("localhost", port, ssl=client)) as wire:
            assert (await wire.ask("GET", "/version")).status == 200
        stranger = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            async with Wire(*await asyncio.open_connection("localhost", port, ssl=stranger)) as wire:
                await wire.ask("GET", "/version")
        await server.close(1)

    run(scenario())


def make_certificates(directory: Path) -> None:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test-ca", "-days", "2",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    for name, extension in (("server", "subjectAltName=DNS:localhost"), ("client", "extendedKeyUsage=clientAuth")):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / "ext").write_text(extension)
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
        openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.pem")


def test_a_unix_socket_is_for_its_owner_and_group(tmp_path):
    with bind_unix(tmp_path / "s"):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660


def test_an_unknown_group_is_refused(tmp_path):
    with pytest.raises(NotFound, match="group no-such-group not found"):
        bind_unix(tmp_path / "s", "no-such-group")


def test_a_socket_somebody_listens_on_is_not_taken_and_a_dead_one_is(tmp_path):
    path = tmp_path / "s"
    with bind_unix(path) as first:
        first.listen()
        with pytest.raises(Conflict, match="another daemon listens there"):
            bind_unix(path)
    bind_unix(path).close()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(Conflict, match="is no socket"):
        bind_unix(path)
    assert path.read_text() == "precious"


def test_a_socket_path_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(InvalidArgument, match="too long"):
        bind_unix(tmp_path / ("x" * 120))


def test_sockets_passed_by_systemd_are_served(tmp_path):
    script = (
        "import os, sys; from lamina.http.sockets import inherited\n"
        "found = inherited(sys.argv[1], listen_pid=os.getpid(), listen_fds=2, names=('a', 'b'))\n"
        "print([os.path.basename(sock.getsockname()) for sock in found])\n"
    )
    with bind_unix(tmp_path / "first") as first, bind_unix(tmp_path / "second") as second:
        launch = (
            f"import fcntl, os, sys; found = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in {first.fileno(), second.fileno()}]\n"
            "for at, fd in enumerate(found): os.dup2(fd, 3 + at)\n"
            "os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
        )

        def served(address: str) -> str:
            return subprocess.run(
                [sys.executable, "-c", launch, script, address],
                pass_fds=(first.fileno(), second.fileno()), cwd=ROOT, check=True, capture_output=True, text=True,
            ).stdout.strip()  # fmt: skip

        assert served("") == served("*") == "['first', 'second']"
        assert served("4") == served("b") == "['second']"


def test_without_sockets_from_systemd_that_is_said():
    with pytest.raises(InvalidArgument, match="socket activation"):
        inherited("", listen_pid=None, listen_fds=0)
    with pytest.raises(InvalidArgument, match="socket activation"):
        inherited("", listen_pid=os.getpid() + 1, listen_fds=1)


def test_close_ends_what_follows_and_waits_for_what_works(tmp_path):
    async def scenario():
        engine = FakeEngine()
        stopping, stopped = asyncio.Event(), []

        async def slow_stop(ref: str, signal: str | None, timeout_s: int | None) -> None:
            stopping.set()
            await asyncio.sleep(0.2)
            stopped.append(ref)

        server = HttpServer(build_app(engine.services(stop=slow_stop), "0.test"))
        path = tmp_path / "s"
        await server.listen(await asyncio.to_thread(bind_unix, path))
        follower, worker = await connect(path), await connect(path)
        await follower.send(request("GET", "/events"))
        await follower.head()
        await worker.send(request("POST", "/containers/web/stop"))
        await stopping.wait()
        began = time.monotonic()
        await server.close(grace_s=10)
        assert time.monotonic() - began < 5
        assert stopped == ["web"]
        assert (await worker.answer()).status == 204
        assert await follower.reader.read() == b""
        await follower.close()
        await worker.close()

    run(scenario())


def test_a_client_that_goes_away_does_not_stop_a_change_half_way():
    async def scenario():
        engine = FakeEngine()
        stopping, stopped = asyncio.Event(), asyncio.Event()

        async def slow_stop(ref: str, signal: str | None, timeout_s: int | None) -> None:
            stopping.set()
            await asyncio.sleep(0.1)
            stopped.set()

        async with serving(engine.services(stop=slow_stop)) as path:
            wire = await connect(path)
            await wire.send(request("POST", "/containers/web/stop"))
            await stopping.wait()
            await wire.close()
            await stopped.wait()

    run(scenario())
