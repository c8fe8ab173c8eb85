"""What Docker's API does not have: the data root is lent to a migration (async)."""

from __future__ import annotations

from lamina.api.errors import json_reply
from lamina.api.routing import Call, Route
from lamina.errors import PermissionDenied
from lamina.http.exchange import Answer, Via


async def lend(call: Call) -> Answer:
    verb = call.verb(call.services.lend_data_root)
    if call.request.via is not Via.UNIX:
        raise PermissionDenied("the data root is only lent to a process of the same host, over the unix socket")
    return json_reply(await verb(call.number("pid") or 0, call.text("driver")))


ROWS = (Route("POST", "/lamina/data-root/lend", lend, "DataRootLend"),)
