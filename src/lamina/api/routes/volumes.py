"""Volumes (async)."""

from __future__ import annotations

from lamina.api.errors import json_reply
from lamina.api.routing import Call, Route
from lamina.http.exchange import Answer, Reply
from lamina.jsonvalue import string_map, text
from lamina.wire.engine.filters import parse_filters


async def listing(call: Call) -> Answer:
    return json_reply(await call.verb(call.services.list_volumes)(parse_filters(call.text("filters"))))


async def create(call: Call) -> Answer:
    verb = call.verb(call.services.create_volume)
    wanted = await call.json()
    created = await verb(
        text(wanted, "Name"),
        driver=text(wanted, "Driver"),
        labels=string_map(wanted, "Labels"),
        options=string_map(wanted, "DriverOpts"),
    )
    return json_reply(created, 201)


async def inspect(call: Call) -> Answer:
    return json_reply(await call.verb(call.services.inspect_volume)(call.names["name"]))


async def remove(call: Call) -> Answer:
    await call.verb(call.services.remove_volume)(call.names["name"], force=call.flag("force"))
    return Reply(204)


ROWS = (
    Route("GET", "/volumes", listing, "VolumeList"),
    Route("POST", "/volumes/create", create, "VolumeCreate"),
    Route("GET", "/volumes/{name}", inspect, "VolumeInspect"),
    Route("DELETE", "/volumes/{name}", remove, "VolumeDelete"),
)
