"""Plugins: this engine has none, and says so where clients look for one (async)."""

from __future__ import annotations

from lamina.api.errors import json_reply
from lamina.api.routing import Call, Route
from lamina.errors import NotFound
from lamina.http.exchange import Answer
from lamina.wire.engine.versions import Version

_SINCE = Version(1, 25)


async def listing(_: Call) -> Answer:
    return json_reply([])


async def inspect(call: Call) -> Answer:
    # `docker inspect NAME` asks here last, and shows "No such object" when the answer is 404.
    raise NotFound(f'plugin "{call.names["name"]}" not found')


ROWS = (
    Route("GET", "/plugins", listing, "PluginList", _SINCE),
    Route("GET", "/plugins/{name}/json", inspect, "PluginInspect", _SINCE),
)
