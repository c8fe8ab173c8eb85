"""Send a signal to a container (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.containers.lifecycle import Lifecycle
from lamina.containers.signals import parse_signal
from lamina.containers.store import ContainerStore
from lamina.engine.stop import stop_signal


@dataclass(frozen=True, slots=True)
class Kill:
    """Signal a container's first process."""

    store: ContainerStore
    lifecycle: Lifecycle

    async def __call__(self, ref: str, signal: str = "") -> None:
        """`signal` empty means SIGKILL, after which the container has ended when this returns.

        Raises:
            NoSuchContainer: no such container.
            Conflict: it does not run.
            InvalidArgument: no such signal.
        """
        number = parse_signal(signal or "KILL")
        container = self.store.resolve(ref)
        await self.lifecycle.kill(container, number, stop_signal=stop_signal(container))
