"""`lamina registry serve`: the registry on a port until it is cancelled (async edge)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from lamina.errors import AlreadyExists, LaminaError
from lamina.registry.app import build_app

_READ_BYTES = 1 << 20
_CLOSE_S = 5.0


class PortInUse(AlreadyExists):
    """Somebody else listens there."""


async def serve(root: Path, host: str, port: int, *, ready: Callable[[int], None]) -> None:
    """Serve the registry kept in `root` on `host:port` (0: any free port) until cancelled.

    `ready` is called with the port once clients can connect.

    Raises:
        PortInUse: another program listens there.
        LaminaError: the address cannot be used.
    """
    app = await asyncio.to_thread(build_app, root)
    runner = web.AppRunner(
        app, access_log=None, read_bufsize=_READ_BYTES, shutdown_timeout=_CLOSE_S, keepalive_timeout=75.0
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise _listening_failed(host, port, error) from error
        ready(_port(runner))
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()


def _listening_failed(host: str, port: int, error: OSError) -> LaminaError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"cannot listen on {host}:{port}: the port is in use by another program",
            hint=f"see who it is with `ss -ltnp sport = :{port}`, or choose another port with --listen",
        )
    return LaminaError(f"cannot listen on {host}:{port}: {error.strerror or error}")


def _port(runner: web.AppRunner) -> int:
    address = runner.addresses[0]
    return int(address[1])
