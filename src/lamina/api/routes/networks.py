"""Networks: look at them (async)."""

from __future__ import annotations

from lamina.api.errors import json_reply
from lamina.api.routing import Call, Route
from lamina.http.exchange import Answer
from lamina.wire.engine.filters import parse_filters
from lamina.wire.engine.versions import Body, older


async def listing(call: Call) -> Answer:
    found = await call.verb(call.services.list_networks)(parse_filters(call.text("filters")))
    return json_reply([older(Body.NETWORK, call.version, network) for network in found])


async def inspect(call: Call) -> Answer:
    found = await call.verb(call.services.inspect_network)(call.names["id"])
    return json_reply(older(Body.NETWORK, call.version, found))


ROWS = (
    Route("GET", "/networks", listing, "NetworkList"),
    Route("GET", "/networks/{id}", inspect, "NetworkInspect"),
)
