"""Watch events, filtered, between two times (async)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lamina.clock import Clock
from lamina.errors import InvalidArgument
from lamina.events import Event, Events, Predicate, Subscription
from lamina.wire.engine.filters import Filters, check_names

FILTERS = frozenset(
    {"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret"}
    | {"service", "type", "volume"},
)
_BY_KIND = ("container", "daemon", "network", "volume", "plugin", "service", "node", "secret", "config")


@dataclass(frozen=True, slots=True)
class WatchEvents:
    """Tell what happens in the engine, from `since_ns` (the journal's reach) to `until_ns` (or for ever)."""

    events: Events
    clock: Clock

    @asynccontextmanager
    async def __call__(
        self, *, since_ns: int | None, until_ns: int | None, filters: Filters
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Begin to watch when entered.

        Raises:
            InvalidArgument: an unknown filter, or `until` before `since`.
        """
        check_names(filters, FILTERS)
        if since_ns is not None and until_ns is not None and until_ns < since_ns:
            raise InvalidArgument("until must be later than since")
        with self.events.subscribe(predicate(filters), since_ns=since_ns) as subscription:
            yield self._until(subscription, until_ns)

    async def _until(self, subscription: Subscription, until_ns: int | None) -> AsyncIterator[Event]:
        while (event := subscription.pending()) is not None:
            if until_ns is not None and event.time_ns > until_ns:
                return
            yield event
        while (event := await self._next(subscription, until_ns)) is not None:
            yield event

    async def _next(self, subscription: Subscription, until_ns: int | None) -> Event | None:
        if until_ns is None:
            return await subscription.next()
        try:
            async with asyncio.timeout(max(0.0, (until_ns - self.clock.now_ns()) / 1e9)):
                event = await subscription.next()
        except TimeoutError:
            return None
        return event if event is not None and event.time_ns <= until_ns else None


def predicate(filters: Filters) -> Predicate:
    """Whether an event passes: every filter name must have one value that matches.

    Source: moby daemon/events/filter.go; ids match by prefix, names by the attribute `name`, images also by their
    name without tag.
    """
    types = filters.get("type", ())
    actions = filters.get("event", ())
    scopes = filters.get("scope", ())
    labels = filters.get("label", ())
    images = filters.get("image", ())

    def passes(event: Event) -> bool:
        if types and event.kind not in types:
            return False
        if actions and not any(event.action == wanted or event.action.startswith(wanted + ":") for wanted in actions):
            return False
        if scopes and "local" not in scopes:
            return False
        if labels and not all(_has_label(event.attributes, label) for label in labels):
            return False
        if images and not _is_image(event, images):
            return False
        return all(_is_object(event, kind, filters[kind]) for kind in _BY_KIND if kind in filters)

    return passes


def _has_label(attributes: Mapping[str, str], label: str) -> bool:
    name, equals, value = label.partition("=")
    return name in attributes and (not equals or attributes[name] == value)


def _is_image(event: Event, wanted: tuple[str, ...]) -> bool:
    if event.kind == "image":
        names = {event.actor_id, event.attributes.get("name", "")}
    elif event.kind == "container":
        names = {event.attributes.get("image", "")}
    else:
        return False
    names |= {_without_tag(name) for name in names}
    return any(text in names for text in wanted)


def _without_tag(name: str) -> str:
    head, _, tail = name.rpartition(":")
    return head if head and "/" not in tail else name


def _is_object(event: Event, kind: str, wanted: tuple[str, ...]) -> bool:
    if event.kind != kind:
        return event.kind == "network" and kind == "container" and event.attributes.get("container", "") in wanted
    name = event.attributes.get("name", "")
    return any(text and (event.actor_id.startswith(text) or name == text.removeprefix("/")) for text in wanted)
