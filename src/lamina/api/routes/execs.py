"""Further processes in a running container (async)."""

from __future__ import annotations

from lamina.api.errors import json_reply
from lamina.api.hijack import pump, take_over_for
from lamina.api.routing import Call, Route
from lamina.errors import InvalidArgument
from lamina.http.exchange import Answer, Reply
from lamina.jsonvalue import boolean, in_known_case, strings, text
from lamina.wire.engine.detach import DEFAULT_KEYS, parse_keys


async def create(call: Call) -> Answer:
    verb = call.verb(call.services.exec_create)
    config = in_known_case(await call.json(), ("DetachKeys",))
    if not strings(config, "Cmd"):
        raise InvalidArgument("No exec command specified")
    parse_keys(text(config, "DetachKeys"))
    return json_reply({"Id": await verb(call.names["id"], config)}, 201)


async def start(call: Call) -> Answer:
    verb, inspect = call.verb(call.services.exec_start), call.verb(call.services.exec_inspect)
    wanted = await call.json(required=False)
    detach, tty = boolean(wanted, "Detach"), boolean(wanted, "Tty")
    exec_id = call.names["id"]
    about = await inspect(exec_id)
    session = await verb(exec_id, detach=detach, tty=tty)
    if session is None:
        return Reply(200)
    keys = parse_keys(text(about, "DetachKeys") or DEFAULT_KEYS)
    call.request.end_with_client()
    # Not whether the exec has a terminal: a client reads what comes as it said itself.
    connection = await take_over_for(session, call, tty=tty)
    await pump(session, connection, keys=keys, stdin=boolean(about, "OpenStdin"), framed=not tty)
    return connection


async def inspect(call: Call) -> Answer:
    return json_reply(await call.verb(call.services.exec_inspect)(call.names["id"]))


ROWS = (
    Route("POST", "/containers/{id}/exec", create, "ContainerExec"),
    Route("POST", "/exec/{id}/start", start, "ExecStart", takes_over=True),
    Route("GET", "/exec/{id}/json", inspect, "ExecInspect"),
)
