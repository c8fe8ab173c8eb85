"""Runs the daemon: take the data root, build, recover, listen, serve, stop in order (async)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from dataclasses import replace
from pathlib import Path

from lamina import __version__
from lamina.api.app import build_app
from lamina.daemon import dataroot
from lamina.daemon.config import DaemonConfig, split_tcp
from lamina.daemon.lending import Lending, first_of, returned
from lamina.daemon.wiring import Engine, open_engine
from lamina.errors import LaminaError, NotFound
from lamina.http import sockets
from lamina.http.server import HttpServer

_log = logging.getLogger("lamina.daemon")

_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}
_GRACE_S = 10.0
_MOST_DESCRIPTORS = 1 << 20


def run(config: DaemonConfig) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        LaminaError: it cannot begin: the data root is in use, a program is missing, a socket is taken.
    """
    logging.basicConfig(
        level=logging.DEBUG if config.debug else _LEVELS[config.log_level],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for warning in config.warnings:
        _log.warning("%s", warning)
    os.umask(0o022)
    raise_descriptor_limit()
    try:
        dataroot.prepare(config.data_root, config.exec_root)
        with dataroot.pidfile(config.pidfile), dataroot.claimed(config.exec_root), asyncio.Runner() as runner:
            runner.run(_serve(config))
    except* LaminaError as errors:
        raise _first(errors) from None


def raise_descriptor_limit() -> None:
    """As many descriptors as this process may have: each running container takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _first(errors: BaseExceptionGroup[LaminaError]) -> LaminaError:
    for error in errors.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")


async def _serve(config: DaemonConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        borrower = await _serve_once(config, stop)
        if borrower is not None:
            _log.info("%s is lent to a migration", config.data_root)
            await returned(borrower, stop)


async def _serve_once(config: DaemonConfig, stop: asyncio.Event) -> int | None:
    """Until the daemon is to stop, or lends its data root: then the pidfd of the borrower."""
    async with contextlib.AsyncExitStack() as undo:
        engine = await undo.enter_async_context(open_engine(config))
        lending = Lending(config, engine.services.info)
        services = replace(engine.services, lend_data_root=lending)
        server = HttpServer(build_app(services, __version__))
        undo.push_async_callback(server.close, _GRACE_S)
        for host in config.hosts:
            for bound, tls in _bind(host, config, undo):
                await server.listen(bound, tls)
        _ready(config, engine)
        await first_of(stop, lending.asked)
        if stop.is_set():
            _log.info("stopping; containers go on")
    return lending.borrower


def _bind(
    host: str, config: DaemonConfig, undo: contextlib.AsyncExitStack
) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
    if host.startswith("unix://"):
        path = Path(host.removeprefix("unix://"))
        bound = _bind_unix(path, config.group)
        undo.callback(sockets.remove_unix, path)
        return [(bound, None)]
    if host.startswith("fd://"):
        passed = sockets.inherited(
            host.removeprefix("fd://"), listen_pid=config.listen_pid, listen_fds=config.listen_fds
        )
        return [(sock, None) for sock in passed]
    address, port = split_tcp(host)
    tls = sockets.mutual_tls(config.tlscacert, config.tlscert, config.tlskey) if config.tlsverify else None
    return [(sockets.bind_tcp(address, port, tls=tls), tls)]


def _bind_unix(path: Path, group: str) -> socket.socket:
    try:
        return sockets.bind_unix(path, group)
    except NotFound:
        # As dockerd: without the group, root alone uses the socket.
        _log.warning("group %s does not exist: only root can use %s", group, path)
        return sockets.bind_unix(path)


def _ready(config: DaemonConfig, engine: Engine) -> None:
    # What start-up made lives as long as the daemon: the collector need not look at it again, and forked pages stay.
    gc.collect()
    gc.freeze()
    _log.info("Lamina %s: %s on %s, API on %s", __version__, engine.driver, config.data_root, ", ".join(config.hosts))
    _notify_systemd(config.notify_socket)


def _notify_systemd(address: str) -> None:
    """Tell systemd that the daemon is ready (sd_notify(3))."""
    if not address:
        return
    target = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(b"READY=1", target)
