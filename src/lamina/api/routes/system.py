"""The engine itself: ping, version, info, disk usage, events (async)."""

from __future__ import annotations

from lamina.api.errors import json_reply
from lamina.api.routing import Call, Route
from lamina.api.streams import line
from lamina.errors import InvalidArgument
from lamina.http.exchange import Answer, Reply
from lamina.wire.engine.auth import of_object
from lamina.wire.engine.filters import parse_filters
from lamina.wire.engine.versions import Body, Version, older

_PING_HEADERS = [
    ("Builder-Version", "1"),  # BuildKit ("2") is not there, so clients do not try it
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Docker-Experimental", "false"),
    ("Pragma", "no-cache"),
    ("Swarm", "inactive"),
]
_DISK_USAGE_KINDS = frozenset({"container", "image", "volume", "build-cache"})


async def ping(call: Call) -> Answer:
    return Reply(200, b"OK", _PING_HEADERS)


async def version(call: Call) -> Answer:
    return json_reply(await call.services.version())


async def info(call: Call) -> Answer:
    return json_reply(older(Body.ENGINE, call.version, await call.services.info()))


async def disk_usage(call: Call) -> Answer:
    kinds = frozenset(call.request.query.get("type", ()))
    unknown = kinds - _DISK_USAGE_KINDS
    if unknown:
        raise InvalidArgument(f"unknown object type: {min(unknown)}")
    usage = await call.verb(call.services.disk_usage)(kinds or _DISK_USAGE_KINDS)
    return json_reply(older(Body.DISK_USAGE, call.version, usage))


async def events(call: Call) -> Answer:
    call.request.end_with_client()
    stream = call.request.stream(200, [("Content-Type", "application/json")])
    watch = call.services.events(
        since_ns=call.time_ns("since"), until_ns=call.time_ns("until"), filters=parse_filters(call.text("filters"))
    )
    async with watch as feed:
        await stream.begin()  # the client may act as soon as it sees that it is watching
        async for event in feed:
            await stream.write(line(event.encode()))
    await stream.end()
    return stream


async def log_in(call: Call) -> Answer:
    return json_reply(await call.verb(call.services.log_in)(of_object(await call.json())))


ROWS = (
    Route("POST", "/auth", log_in, "SystemAuth"),
    Route("GET", "/_ping", ping, "SystemPing"),
    Route("HEAD", "/_ping", ping, "SystemPingHead"),
    Route("GET", "/version", version, "SystemVersion"),
    Route("GET", "/info", info, "SystemInfo"),
    Route("GET", "/system/df", disk_usage, "SystemDataUsage", Version(1, 25)),
    Route("GET", "/events", events, "SystemEvents"),
)
