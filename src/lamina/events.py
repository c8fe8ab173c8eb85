"""Publish and subscribe: what happened in this engine, as it happens and a while back (async).

Source: Engine API, "Monitor events".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from lamina.clock import Clock
from lamina.jsonvalue import JsonObject

JOURNAL_EVENTS = 1024
QUEUE_EVENTS = 4096
"""A subscriber further behind than this loses its subscription rather than the daemon its memory."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one object."""

    kind: str
    """`container`, `image`, `volume`, `network`, `daemon`."""
    action: str
    """`start`, `exec_create: ls`, …"""
    actor_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = 0
    """Since the epoch; each event is later than the one before."""

    def encode(self) -> JsonObject:
        """Docker's JSON object. `status`, `id` and `from` are for clients from before there were kinds."""
        body: JsonObject = {}
        if self.kind in {"container", "image"}:
            body["status"] = self.action
            body["id"] = self.actor_id
        if self.kind == "container" and self.attributes.get("image"):
            body["from"] = self.attributes["image"]
        body["Type"] = self.kind
        body["Action"] = self.action
        body["Actor"] = {"ID": self.actor_id, "Attributes": dict(self.attributes)}
        body["scope"] = "local"
        body["time"] = self.time_ns // 1_000_000_000
        body["timeNano"] = self.time_ns
        return body


Predicate: TypeAlias = Callable[[Event], bool]


class Subscription:
    """The events somebody wants, in order, from the moment of subscribing (or from the journal)."""

    def __init__(self, wanted: Predicate, backlog: Iterable[Event]) -> None:
        self._wanted = wanted
        self._queue: deque[Event] = deque(backlog)
        self._wakeup: asyncio.Future[None] | None = None
        self._overrun = False

    async def next(self) -> Event | None:
        """The next event, waiting for it; None when this subscriber fell too far behind and was dropped."""
        while not self._queue:
            if self._overrun:
                return None
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        return self._queue.popleft()

    def pending(self) -> Event | None:
        """The next event if there is one already."""
        return self._queue.popleft() if self._queue else None

    def offer(self, event: Event) -> None:
        """An event happened."""
        if self._overrun or not self._wanted(event):
            return
        if len(self._queue) >= QUEUE_EVENTS:
            self._overrun = True
        else:
            self._queue.append(event)
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


class Events:
    """The engine's one event stream. Used on the event loop only."""

    def __init__(self, clock: Clock, journal_events: int = JOURNAL_EVENTS) -> None:
        self._clock = clock
        self._journal: deque[Event] = deque(maxlen=journal_events)
        self._subscriptions: set[Subscription] = set()
        self._last_ns = 0

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None) -> None:
        """Tell everybody; never waits. Each event is later than the one before, even when the clock goes back."""
        self._last_ns = max(self._clock.now_ns(), self._last_ns + 1)
        event = Event(kind, action, actor_id, dict(attributes or {}), self._last_ns)
        self._journal.append(event)
        for subscription in self._subscriptions:
            subscription.offer(event)

    @property
    def listeners(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    @contextlib.contextmanager
    def subscribe(self, wanted: Predicate, *, since_ns: int | None = None) -> Iterator[Subscription]:
        """Be told from now on; with `since_ns` also what the journal still has from then on."""
        past = [] if since_ns is None else [e for e in self._journal if e.time_ns >= since_ns and wanted(e)]
        subscription = Subscription(wanted, past)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
