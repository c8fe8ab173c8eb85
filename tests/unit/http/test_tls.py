import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lamina.http.sockets import bind_tcp, mutual_tls
from lamina.http.tls import TlsConnection
from tests.api.test_limits import make_certificates


class Tail(asyncio.Protocol):
    """Keeps what comes, and answers after the end of the input: how much it was, then a lot more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(0.001, self.transport.resume_reading)

    def eof_received(self) -> bool:
        asyncio.get_running_loop().call_later(0.05, self._answer)
        return True

    def _answer(self) -> None:
        self.transport.write(b"%d\n" % self.received)
        self.transport.write(bytes(3_000_000))
        self.transport.close()


class Client:
    """TLS over a plain connection, so that its end can be sent alone, as Go's clients do."""

    def __init__(self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.reader, self.writer = reader, writer

    async def flush(self) -> None:
        self.writer.write(self.outgoing.read())
        await self.writer.drain()

    async def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                self.incoming.write(await self.reader.read(65536))
                continue
            await self.flush()
            return

    async def read_all(self) -> bytes:
        got = bytearray()
        while True:
            try:
                got += self.tls.read(65536)
            except ssl.SSLWantReadError:
                data = await self.reader.read(65536)
                if not data:
                    raise ConnectionResetError("cut without an end") from None
                self.incoming.write(data)
            except ssl.SSLZeroReturnError:
                return bytes(got)


@contextlib.asynccontextmanager
async def connected(directory: Path, *, certificate: bool = True) -> AsyncIterator[Client]:
    make_certificates(directory)
    context = mutual_tls(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    sock = bind_tcp("127.0.0.1", 0, tls=context)
    port = sock.getsockname()[1]
    server = await asyncio.get_running_loop().create_server(lambda: TlsConnection(context, Tail), sock=sock)
    theirs = ssl.create_default_context(cafile=directory / "ca.pem")
    if certificate:
        theirs.load_cert_chain(directory / "client.pem", directory / "client.key")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(theirs, reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        server.close()
        await asyncio.sleep(0)  # the server's ends of connections close in the loop's next turn


def test_the_answer_comes_after_the_end_of_the_input(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        async with connected(tmp_path) as client:
            await client.handshake()
            client.tls.write(bytes(1_000_000))
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.unwrap()
            await client.flush()
            return await client.read_all()

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == b"1000000\n" + bytes(3_000_000)


def test_a_stranger_and_noise_are_shut_out(tmp_path: Path) -> None:
    async def stranger() -> None:
        async with connected(tmp_path, certificate=False) as client:
            await client.handshake()
            await client.read_all()

    async def noise() -> bytes:
        async with connected(tmp_path) as client:
            client.writer.write(b"GET /version HTTP/1.1\r\n\r\n")
            return await client.reader.read()

    with pytest.raises((ssl.SSLError, ConnectionError)):
        asyncio.run(asyncio.wait_for(stranger(), 20))
    assert b"HTTP" not in asyncio.run(asyncio.wait_for(noise(), 20))


def test_an_input_without_its_end_is_a_lost_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as client:
            await client.handshake()
            client.tls.write(b"half")
            await client.flush()
            client.writer.write_eof()
            await client.read_all()

    with pytest.raises(ConnectionError):
        asyncio.run(asyncio.wait_for(scenario(), 20))
