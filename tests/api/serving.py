"""A real server in the test's own event loop, and a client that sends exactly the bytes it is told."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lamina.api.app import build_app
from lamina.engine.services import Services
from lamina.http.exchange import Application
from lamina.http.server import HttpServer, Limits
from lamina.http.sockets import bind_unix


@asynccontextmanager
async def serving(served: Services | Application, limits: Limits | None = None) -> AsyncIterator[Path]:
    """The path of a unix socket where `served` answers."""
    app = build_app(served, "0.test") if isinstance(served, Services) else served
    with tempfile.TemporaryDirectory(prefix="lam") as directory:
        path = Path(directory) / "s"
        server = HttpServer(app, limits)
        await server.listen(await asyncio.to_thread(bind_unix, path))
        try:
            yield path
        finally:
            await server.close(grace_s=2)


@dataclass
class Got:
    status: int
    headers: dict[str, str]
    body: bytes = b""
    trailing: bytes = field(default=b"", repr=False)

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return self.json["message"]


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Got:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Got(int(first.split()[1]), headers)

    async def answer(self, *, has_body: bool = True) -> Got:
        got = await self.head()
        if not has_body or got.status in {204, 304, 101}:
            return got
        if got.headers.get("transfer-encoding") == "chunked":
            while chunk := await self.chunk():
                got.body += chunk
        elif "content-length" in got.headers:
            got.body = await self.reader.readexactly(int(got.headers["content-length"]))
        else:
            got.body = await self.reader.read()
        return got

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def ask(self, method: str, target: str, body: bytes | dict | None = None, **headers: str) -> Got:
        await self.send(request(method, target, body, **headers))
        return await self.answer(has_body=method != "HEAD")

    def end(self) -> None:
        """Half-close: nothing more is sent, everything is still read."""
        self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def connect(path: Path) -> Wire:
    return Wire(*await asyncio.open_unix_connection(path))


def request(method: str, target: str, body: bytes | dict | None = None, **headers: str) -> bytes:
    headers.setdefault("Host", "docker")
    lines = [f"{method} {target} HTTP/1.1"]
    if isinstance(body, dict):
        body = json.dumps(body).encode()
        headers.setdefault("Content_Type", "application/json")
    if body is not None:
        headers.setdefault("Content_Length", str(len(body)))
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


async def ask(path: Path, method: str, target: str, body: bytes | dict | None = None, **headers: str) -> Got:
    async with await connect(path) as wire:
        return await wire.ask(method, target, body, **headers)
