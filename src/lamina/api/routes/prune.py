"""Remove what nobody uses (async)."""

from __future__ import annotations

from lamina.api.errors import json_reply
from lamina.api.routing import Call, Route
from lamina.http.exchange import Answer
from lamina.wire.engine.filters import Filters, parse_filters
from lamina.wire.engine.versions import PRUNE_SINCE, Version

_NAMED_VOLUMES_STAY_SINCE = Version(1, 42)


async def containers(call: Call) -> Answer:
    return json_reply(await call.verb(call.services.prune_containers)(_filters(call)))


async def images(call: Call) -> Answer:
    return json_reply(await call.verb(call.services.prune_images)(_filters(call)))


async def volumes(call: Call) -> Answer:
    filters = dict(_filters(call))
    if call.version < _NAMED_VOLUMES_STAY_SINCE:
        filters["all"] = ("true",)
    return json_reply(await call.verb(call.services.prune_volumes)(filters))


def _filters(call: Call) -> Filters:
    return parse_filters(call.text("filters"))


ROWS = (
    Route("POST", "/containers/prune", containers, "ContainerPrune", PRUNE_SINCE),
    Route("POST", "/images/prune", images, "ImagePrune", PRUNE_SINCE),
    Route("POST", "/volumes/prune", volumes, "VolumePrune", PRUNE_SINCE),
)
