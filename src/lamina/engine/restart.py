"""Stop a container and start it again (async)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from lamina.containers.lifecycle import Lifecycle
from lamina.containers.signals import parse_signal
from lamina.containers.store import ContainerStore
from lamina.engine.stop import stop_signal, stop_timeout_s
from lamina.errors import NotModified


@dataclass(frozen=True, slots=True)
class Restart:
    """Stop a container if it runs, then start it."""

    store: ContainerStore
    lifecycle: Lifecycle

    async def __call__(self, ref: str, signal: str | None = None, timeout_s: int | None = None) -> None:
        """The command runs again when this returns.

        Raises:
            NoSuchContainer: no such container.
            InvalidArgument: no such signal.
            CommandNotFound, CommandNotExecutable, ProcessFailed: the start failed.
        """
        container = self.store.resolve(ref)
        number = parse_signal(signal) if signal else stop_signal(container)
        with contextlib.suppress(NotModified), self.lifecycle.keeping(container):
            await self.lifecycle.stop(container, number, stop_timeout_s(container, timeout_s))
        await self.lifecycle.start(container)
        self.lifecycle.tell(container, "restart")
