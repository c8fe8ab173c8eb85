"""Stop a container (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.containers.lifecycle import Lifecycle
from lamina.containers.record import Container
from lamina.containers.signals import DEFAULT_STOP, parse_signal
from lamina.containers.store import ContainerStore
from lamina.jsonvalue import integer, text

DEFAULT_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask a container to end, and kill it when it does not."""

    store: ContainerStore
    lifecycle: Lifecycle

    async def __call__(self, ref: str, signal: str | None = None, timeout_s: int | None = None) -> None:
        """The container has ended when this returns. `timeout_s` negative: wait for ever before killing.

        Raises:
            NoSuchContainer: no such container.
            NotModified: it does not run.
            InvalidArgument: no such signal.
        """
        container = self.store.resolve(ref)
        number = parse_signal(signal) if signal else stop_signal(container)
        await self.lifecycle.stop(container, number, stop_timeout_s(container, timeout_s))


def stop_signal(container: Container) -> int:
    """The signal that the container wants to be stopped with."""
    wanted = text(container.config, "StopSignal")
    return parse_signal(wanted) if wanted else DEFAULT_STOP


def stop_timeout_s(container: Container, asked_s: int | None) -> float | None:
    """How long a stop waits before it kills; None: for ever."""
    seconds = asked_s
    if seconds is None:
        has_own = container.config.get("StopTimeout") is not None
        seconds = integer(container.config, "StopTimeout") if has_own else DEFAULT_TIMEOUT_S
    return None if seconds < 0 else float(seconds)
