"""Attach and exec over raw sockets: early bytes, half-close, backpressure, sudden ends."""

from __future__ import annotations

import asyncio
import select
import socket

import pytest

from lamina.api.hijack import take_over_for
from lamina.wire.engine.rawstream import MULTIPLEXED, RAW, Deframer
from lamina.wire.engine.versions import Version
from tests.api.fakes import EchoSession, FakeEngine, Flood
from tests.api.serving import ask, connect, request, serving

ATTACH = "/containers/web/attach?stream=1&stdin=1&stdout=1&stderr=1"
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


def run(scenario) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


async def frames(wire) -> list[tuple[int, bytes]]:
    return Deframer().feed(await wire.reader.read())


def test_attach_with_upgrade_answers_101_and_carries_both_ways():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("POST", "/v1.51" + ATTACH, **UPGRADE))
            head = await wire.head()
            assert (head.status, head.headers["upgrade"], head.headers["content-type"]) == (101, "tcp", MULTIPLEXED)
            await wire.send(b"hello")
            wire.end()
            assert await frames(wire) == [(1, b"hello"), (2, b"bye\n")]
            await engine.session.closed.wait()

    run(scenario())


@pytest.mark.parametrize("version", ["/v1.41", "/v1.24"])
def test_clients_before_1_42_are_told_raw_stream(version):
    async def scenario():
        async with serving(FakeEngine().services()) as path, await connect(path) as wire:
            await wire.send(request("POST", version + ATTACH, **UPGRADE))
            assert (await wire.head()).headers["content-type"] == RAW

    run(scenario())


def test_attach_without_upgrade_answers_200_and_then_raw_bytes():
    async def scenario():
        async with serving(FakeEngine().services()) as path, await connect(path) as wire:
            await wire.send(request("POST", ATTACH))
            head = await wire.head()
            assert head.status == 200
            assert head.headers["content-type"] == RAW
            assert "transfer-encoding" not in head.headers
            await wire.send(b"GET / HTTP/1.1\r\n\r\n")
            wire.end()
            assert await frames(wire) == [(1, b"GET / HTTP/1.1\r\n\r\n"), (2, b"bye\n")]

    run(scenario())


def test_output_waits_until_the_client_has_read_the_head():
    """docker-py reads the head through a buffer and the rest from the bare socket: what came with the head is lost."""

    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path:
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, str(path))
                await loop.sock_sendall(client, request("POST", ATTACH, **UPGRADE))
                engine.session.say(b"at once")
                while client not in select.select([client], [], [], 0)[0]:  # noqa: ASYNC110 (nothing may read yet)
                    await asyncio.sleep(0)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert client.recv(8192).endswith(b"\r\n\r\n")
                assert Deframer().feed(await loop.sock_recv(client, 8192)) == [(1, b"at once")]

    run(scenario())


def test_output_does_not_wait_for_ever_for_a_client_that_reads_nothing():
    async def scenario():
        engine = FakeEngine()
        engine.session.say(b"at once")
        async with serving(engine.services()) as path, await connect(path) as wire:
            wire.writer.transport.pause_reading()
            await wire.send(request("POST", ATTACH, **UPGRADE))
            engine.session.finish()
            await engine.session.closed.wait()
            wire.writer.transport.resume_reading()
            await wire.head()
            assert await frames(wire) == [(1, b"at once")]

    run(scenario())


def test_the_output_of_an_exec_is_framed_as_the_client_believes():
    async def scenario():
        engine = FakeEngine()
        engine.exec_session.tty = True
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("POST", f"/v1.51/exec/{'ee' * 32}/start", {"Tty": False}, **UPGRADE))
            assert (await wire.head()).headers["content-type"] == MULTIPLEXED
            engine.exec_session.say(b"raw")
            engine.exec_session.finish()
            assert await frames(wire) == [(1, b"raw")]

    run(scenario())


@pytest.mark.parametrize("headers", [{}, UPGRADE])
@pytest.mark.parametrize("early", [b"early", b"POST /x HTTP/1.1\r\n\r\n", b"\x00\xff\r\n" * 1000])
def test_bytes_in_the_same_segment_as_the_request_are_delivered(headers, early):
    async def scenario():
        async with serving(FakeEngine().services()) as path, await connect(path) as wire:
            await wire.send(request("POST", ATTACH, **headers) + early)
            wire.end()
            await wire.head()
            got = await frames(wire)
            assert b"".join(data for stream, data in got if stream == 1) == early
            assert got[-1] == (2, b"bye\n")

    run(scenario())


@pytest.mark.parametrize("size", [1, 7])
def test_a_request_that_comes_in_small_pieces_is_split_at_its_end(size):
    async def scenario():
        async with serving(FakeEngine().services()) as path, await connect(path) as wire:
            data = request("POST", "/exec/" + "ee" * 32 + "/start", {"Detach": False, "Tty": False}, **UPGRADE) + b"in"
            for at in range(0, len(data), size):
                await wire.send(data[at : at + size])
                await asyncio.sleep(0)
            wire.end()
            assert (await wire.head()).status == 101
            assert b"".join(data for _, data in await frames(wire)) == b"inbye\n"

    run(scenario())


def test_exec_start_with_a_chunked_body_is_split_at_its_end():
    async def scenario():
        async with serving(FakeEngine().services()) as path, await connect(path) as wire:
            head = request("POST", "/exec/" + "ee" * 32 + "/start", Transfer_Encoding="chunked",
                           Content_Type="application/json", **UPGRADE)  # fmt: skip
            await wire.send(head + b'10;x=y\r\n{"Detach":false}\r\n0\r\nA: b\r\n\r\nraw')
            wire.end()
            assert (await wire.head()).status == 101
            assert (await frames(wire))[0] == (1, b"raw")

    run(scenario())


def test_requests_before_and_after_on_one_connection():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path, await connect(path) as wire:
            detached = request("POST", "/exec/" + "ee" * 32 + "/start", {"Detach": True})
            await wire.send(request("GET", "/_ping") + detached + request("GET", "/version") + request("POST", ATTACH))
            assert (await wire.answer()).body == b"OK"
            assert (await wire.answer()).status == 200
            assert (await wire.answer()).json["ApiVersion"] == "1.51"
            await wire.send(b"typed")
            wire.end()
            assert (await wire.head()).status == 200
            assert (await frames(wire))[0] == (1, b"typed")

    run(scenario())


def test_a_refused_attach_is_an_ordinary_answer_and_the_connection_goes_on():
    async def scenario():
        async with serving(FakeEngine().services()) as path, await connect(path) as wire:
            await wire.send(request("POST", "/containers/absent/attach?stream=1", **UPGRADE) + request("GET", "/_ping"))
            got = await wire.answer()
            assert (got.status, got.message) == (404, "No such container: absent")
            assert (await wire.answer()).body == b"OK"

    run(scenario())


def test_a_terminal_is_raw_and_detaches_on_its_keys():
    async def scenario():
        engine = FakeEngine()
        engine.session = EchoSession(tty=True)
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("POST", ATTACH + "&detachKeys=ctrl-x,y", **UPGRADE))
            assert (await wire.head()).headers["content-type"] == RAW
            await wire.send(b"ls\n\x18z\x18")
            assert await wire.reader.readexactly(5) == b"ls\n\x18z"
            await wire.send(b"y never seen")
            assert await wire.reader.read() == b""
            await engine.session.closed.wait()
            assert not engine.session.stdin_closed.is_set()
            assert bytes(engine.session.received) == b"ls\n\x18z"

    run(scenario())


def test_bad_detach_keys_are_refused_before_anything_begins():
    async def scenario():
        async with serving(FakeEngine().services()) as path:
            got = await ask(path, "POST", ATTACH + "&detachKeys=ctrl-nope", **UPGRADE)
            assert got.status == 400
            assert "ctrl-nope" in got.message

    run(scenario())


def test_output_waits_for_a_slow_client():
    async def scenario():
        engine = FakeEngine()
        engine.session = flood = Flood()
        async with serving(engine.services()) as path, await connect(path) as wire:
            wire.writer.transport.pause_reading()
            await wire.send(request("POST", ATTACH, **UPGRADE))
            before = -1
            while before != flood.taken or not flood.taken:
                before = flood.taken
                await asyncio.sleep(0.05)
            assert flood.taken < 4 << 20
            wire.writer.transport.resume_reading()
            await wire.reader.readexactly(8 << 20)
            assert flood.taken >= (8 << 20) - (1 << 20)

    run(scenario())


def test_input_waits_for_a_slow_process():
    async def scenario():
        engine = FakeEngine()
        slow = asyncio.Event()

        class Slow(EchoSession):
            async def write_stdin(self, data: bytes) -> None:
                self.received += data
                await slow.wait()

        engine.session = Slow()
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("POST", ATTACH, **UPGRADE))
            await wire.head()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wire.send(bytes(16 << 20)), 0.5)
            assert len(engine.session.received) < 4 << 20
            slow.set()
            wire.end()
            await engine.session.stdin_closed.wait()
            assert len(engine.session.received) == 16 << 20

    run(scenario())


def test_a_client_that_vanishes_lets_go_of_the_session():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path:
            wire = await connect(path)
            await wire.send(request("POST", ATTACH, **UPGRADE))
            await wire.head()
            wire.writer.transport.abort()
            await engine.session.closed.wait()

    run(scenario())


def test_a_client_that_vanishes_after_its_half_close_is_noticed_without_output():
    async def scenario():
        engine = FakeEngine()

        class Silent(EchoSession):
            async def close_stdin(self) -> None:
                self.stdin_closed.set()

        engine.session = Silent()
        async with serving(engine.services()) as path:
            wire = await connect(path)
            await wire.send(request("POST", ATTACH, **UPGRADE))
            await wire.head()
            wire.end()
            await engine.session.stdin_closed.wait()
            assert not engine.session.closed.is_set()
            wire.writer.transport.abort()
            await engine.session.closed.wait()

    run(scenario())


def test_output_goes_on_after_the_half_close():
    async def scenario():
        engine = FakeEngine()

        class Late(EchoSession):
            async def close_stdin(self) -> None:
                self.stdin_closed.set()

        engine.session = Late()
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("POST", ATTACH, **UPGRADE))
            await wire.head()
            wire.end()
            await engine.session.stdin_closed.wait()
            await asyncio.sleep(0.05)
            engine.session.say(b"later")
            engine.session.finish()
            assert await frames(wire) == [(1, b"later")]

    run(scenario())


def test_a_process_that_reads_no_more_does_not_end_the_output():
    async def scenario():
        engine = FakeEngine()

        class Deaf(EchoSession):
            async def write_stdin(self, data: bytes) -> None:
                self.say(b"not listening")
                self.finish()
                raise BrokenPipeError

        engine.session = Deaf()
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("POST", ATTACH, **UPGRADE))
            await wire.head()
            await wire.send(b"hey")
            assert await frames(wire) == [(1, b"not listening")]

    run(scenario())


class Gone:
    """A call whose client has reset its connection."""

    version = Version(1, 51)

    def __init__(self) -> None:
        self.request = self
        self.headers: dict[str, str] = {}

    def hijack(self, head: bytes) -> None:
        raise ConnectionResetError("the client went away")


def test_a_client_that_is_gone_before_the_takeover_leaves_no_session():
    async def scenario():
        session = EchoSession()
        with pytest.raises(ConnectionResetError):
            await take_over_for(session, Gone(), tty=False)
        assert session.closed.is_set()

    run(scenario())
