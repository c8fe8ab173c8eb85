"""Registries for tests: any aiohttp app on a loopback port, and Debian's docker-registry as a process."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from lamina.distribution.registries import Registries
from lamina.distribution.registry_config import RegistryConfig
from lamina.distribution.repository import Repository
from lamina.distribution.retry import Retry
from lamina.oci.reference import Reference, parse_reference
from lamina.wire.engine.auth import RegistryAuth
from lamina.workers import Workers

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(app: web.Application, **options: object) -> AsyncIterator[int]:
    """Serve the app on a free loopback port; the port."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, **options)  # type: ignore[arg-type]
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Hostile:
    """A registry that answers what a test tells it to: (method, path) -> handler. Remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Handler] = {}
        self.requests: list[web.Request] = []
        self.port = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    def on(self, method: str, path: str, handler: Handler | web.Response) -> None:
        if isinstance(handler, web.Response):
            status, body, headers = handler.status, handler.body, dict(handler.headers)

            async def fixed(_: web.Request) -> web.Response:
                return web.Response(status=status, body=body, headers=headers)

            self.answers[method, path] = fixed
        else:
            self.answers[method, path] = handler

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        found = self.answers.get((request.method, request.path))
        if found is not None:
            return await found(request)
        if request.path == "/v2/":
            return web.json_response({})
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}, status=404)

    def sent(self, header: str) -> list[str]:
        return [request.headers[header] for request in self.requests if header in request.headers]


@contextlib.asynccontextmanager
async def hostile() -> AsyncIterator[Hostile]:
    found = Hostile()
    async with serving(found.app()) as port:
        found.port = port
        yield found


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


AT_ONCE = Retry(attempts=3, sleep=_at_once)
"""Tries again without waiting."""


@contextlib.asynccontextmanager
async def client(config: RegistryConfig | None = None) -> AsyncIterator[Registries]:
    workers = Workers(threads=4)
    registries = Registries(config or RegistryConfig(certs_dirs=()), workers, retry=AT_ONCE)
    try:
        yield registries
    finally:
        await registries.aclose()
        workers.close()


async def repository(registries: Registries, text: str, auth: RegistryAuth | None = None) -> Repository:
    return (await registries.pull_from(parse_reference(text), auth))[-1]


def reference(text: str) -> Reference:
    return parse_reference(text).with_default_tag()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def docker_registry(directory: Path, *, http: str = "", extra: str = "") -> Iterator[int]:
    """Debian's registry with its files in `directory`; `http` and `extra` are further lines of its configuration."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "config.yml"
    configuration.write_text(
        "version: 0.1\n"
        f"storage:\n  filesystem: {{rootdirectory: {directory}/files}}\n  delete: {{enabled: true}}\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{http}{extra}"
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(configuration)], stdout=log, stderr=log)
    try:
        _wait_for_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, "docker-registry ended at once"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError("docker-registry does not listen")
