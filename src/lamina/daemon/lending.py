"""Lending the data root to a migration: the daemon closes, waits for the borrower to end, and opens again (async).

A migration is carried out by the client's own process, which takes the data root's lock as a daemon would. One that
finds a daemon there asks it for the loan. Whether the borrower succeeds, fails or is killed, its end is the loan's end.
"""

from __future__ import annotations

import asyncio
import os

from lamina.daemon.config import DaemonConfig
from lamina.engine.services import Describe
from lamina.errors import Conflict, InvalidArgument, Unsupported
from lamina.jsonvalue import JsonObject, integer
from lamina.kernel.pidfd import open_pidfd
from lamina.storage.select import options_of


class Lending:
    """The verb that lends, and what came of it. `borrower` is the pidfd of who has the data root, None for nobody."""

    def __init__(self, config: DaemonConfig, info: Describe) -> None:
        self._config = config
        self._info = info
        self.asked = asyncio.Event()
        self.borrower: int | None = None

    async def __call__(self, pid: int, driver: str) -> JsonObject:
        """Promise the data root to the process `pid`, which will leave it with `driver` ("": with that it has now).

        Raises:
            Conflict: containers run, it is lent already, or this daemon could not go on with that driver.
            InvalidArgument: no such process. Unsupported: its sockets are systemd's.
        """
        config = self._config
        if driver and config.storage_driver not in {"", driver}:
            raise _needs_stop(f"the daemon was told to use the storage driver {config.storage_driver}")
        if driver and options_of(driver, config.storage_opts) != dict(config.storage_opts):
            raise _needs_stop("the daemon has storage options that are not for the storage driver " + driver)
        if any(host.startswith("fd://") for host in config.hosts):
            raise Unsupported(
                "the daemon has its sockets from systemd and cannot close them for a while",
                hint="stop the daemon and its socket unit, migrate, and start them again",
            )
        found = await self._info()
        running = integer(found, "ContainersRunning") + integer(found, "ContainersPaused")
        if running:
            raise Conflict(
                f"{running} of the containers in {config.data_root} run", hint="lamina stop $(lamina ps -q), then again"
            )
        if self.borrower is not None:
            raise Conflict(f"{config.data_root} is lent to another migration already")
        try:
            self.borrower = open_pidfd(pid)
        except (ProcessLookupError, ValueError, OverflowError, OSError) as error:
            raise InvalidArgument(f"there is no process {pid} here that could borrow {config.data_root}") from error
        self.asked.set()
        return {"DataRoot": os.fspath(config.data_root)}


async def returned(pidfd: int, stop: asyncio.Event) -> None:
    """Until the borrower has ended, or the daemon is to stop. Closes the descriptor."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await first_of(ended, stop)
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def first_of(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in waiting:
            future.cancel()


def _needs_stop(message: str) -> Conflict:
    return Conflict(message, hint="stop the daemon, migrate, and start it with the options of the new driver")
