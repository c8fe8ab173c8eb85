from __future__ import annotations

import asyncio

import pytest

from lamina.engine.events import WatchEvents, predicate
from lamina.errors import InvalidArgument
from lamina.events import QUEUE_EVENTS, Event, Events


class Clock:
    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self.now = now_ns

    def now_ns(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1e9


def test_time_never_stands_still_or_goes_back():
    async def scenario():
        clock = Clock()
        events = Events(clock)
        with events.subscribe(lambda _: True) as subscription:
            for now in (5, 5, 3, 9):
                clock.now = now
                events.publish("container", "start", "x")
            assert [subscription.pending().time_ns for _ in range(4)] == [5, 6, 7, 9]

    asyncio.run(scenario())


def test_the_journal_is_bounded_and_tells_the_past():
    async def scenario():
        events = Events(Clock(), journal_events=3)
        for number in range(5):
            events.publish("image", "pull", str(number))
        with events.subscribe(lambda _: True, since_ns=0) as subscription:
            assert [(await subscription.next()).actor_id for _ in range(3)] == ["2", "3", "4"]
            assert subscription.pending() is None

    asyncio.run(scenario())


def test_a_subscriber_that_does_not_read_is_dropped_and_costs_no_more():
    async def scenario():
        events = Events(Clock())
        with events.subscribe(lambda _: True) as subscription:
            for _ in range(QUEUE_EVENTS + 10):
                events.publish("image", "pull", "x")
            for _ in range(QUEUE_EVENTS):
                assert await subscription.next() is not None
            assert await subscription.next() is None
        assert events.listeners == 0

    asyncio.run(scenario())


def test_watching_goes_from_the_past_to_until():
    async def scenario():
        clock = Clock()
        events = Events(clock)
        events.publish("image", "pull", "before")
        watch = WatchEvents(events, clock)
        async with watch(since_ns=0, until_ns=clock.now + 50_000_000, filters={}) as feed:
            events.publish("image", "tag", "within")
            clock.now += 60_000_000
            events.publish("image", "tag", "after")
            assert [event.actor_id async for event in feed] == ["before", "within"]
        async with watch(since_ns=None, until_ns=clock.now - 1, filters={}) as feed:
            assert [event async for event in feed] == []

    asyncio.run(scenario())


@pytest.mark.parametrize("times", [(2, 1)])
def test_until_before_since_is_refused(times):
    async def scenario():
        with pytest.raises(InvalidArgument):
            async with WatchEvents(Events(Clock()), Clock())(since_ns=times[0], until_ns=times[1], filters={}):
                raise AssertionError

    asyncio.run(scenario())


CONTAINER = Event("container", "exec_start: ls -l", "abc123", {"name": "web", "image": "reg:5000/a:b", "tier": "front"})
IMAGE = Event("image", "pull", "docker.io/library/a:b", {"name": "a:b"})
NETWORK = Event("network", "connect", "net1", {"name": "bridge", "container": "abc123"})


@pytest.mark.parametrize(
    ("event", "filters", "passes"),
    [
        (CONTAINER, {}, True),
        (CONTAINER, {"type": ("container", "image")}, True),
        (CONTAINER, {"type": ("image",)}, False),
        (CONTAINER, {"event": ("exec_start",)}, True),
        (CONTAINER, {"event": ("exec_start: ls -l",)}, True),
        (CONTAINER, {"event": ("exec",)}, False),
        (CONTAINER, {"container": ("web",)}, True),
        (CONTAINER, {"container": ("/web",)}, True),
        (CONTAINER, {"container": ("abc",)}, True),
        (CONTAINER, {"container": ("we",)}, False),
        (CONTAINER, {"image": ("reg:5000/a:b",)}, True),
        (CONTAINER, {"image": ("reg:5000/a",)}, True),
        (CONTAINER, {"image": ("reg",)}, False),
        (CONTAINER, {"label": ("tier=front",)}, True),
        (CONTAINER, {"label": ("tier",)}, True),
        (CONTAINER, {"label": ("tier=front", "other")}, False),
        (CONTAINER, {"scope": ("swarm",)}, False),
        (CONTAINER, {"scope": ("local",)}, True),
        (CONTAINER, {"volume": ("web",)}, False),
        (IMAGE, {"image": ("a",)}, True),
        (IMAGE, {"container": ("a",)}, False),
        (NETWORK, {"network": ("bridge",)}, True),
        (NETWORK, {"network": ("net",)}, True),
        (NETWORK, {"network": ("other",)}, False),
    ],
)
def test_filters(event, filters, passes):
    assert predicate(filters)(event) is passes


def test_only_containers_and_images_have_the_old_fields():
    assert "status" not in NETWORK.encode()
    assert "from" not in IMAGE.encode()
    assert CONTAINER.encode()["from"] == "reg:5000/a:b"
    assert list(NETWORK.encode()) == ["Type", "Action", "Actor", "scope", "time", "timeNano"]
