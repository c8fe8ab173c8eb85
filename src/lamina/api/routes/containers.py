"""Containers: create, look at, and their life (async)."""

from __future__ import annotations

from lamina.api.errors import json_reply
from lamina.api.routing import Call, Route
from lamina.errors import InvalidArgument
from lamina.http.exchange import Answer, Reply
from lamina.jsonvalue import JsonObject, JsonValue, mapping
from lamina.oci import platform as oci_platform
from lamina.wire.engine.filters import parse_filters
from lamina.wire.engine.versions import WAIT_CONDITION_SINCE, Body, Version, newer, older

_NO_CONTENT = Reply(204)
_STOP_SIGNAL_SINCE = Version(1, 42)


async def listing(call: Call) -> Answer:
    found = await call.verb(call.services.list_containers)(
        all=call.flag("all"),
        limit=call.number("limit") or 0,
        size=call.flag("size"),
        filters=parse_filters(call.text("filters")),
    )
    return json_reply([older(Body.CONTAINER_SUMMARY, call.version, summary) for summary in found])


async def create(call: Call) -> Answer:
    verb = call.verb(call.services.create)
    body = newer(Body.CONTAINER_CREATE, call.version, await call.json())
    host_config, networking = mapping(body, "HostConfig"), mapping(body, "NetworkingConfig")
    config: JsonObject = {key: value for key, value in body.items() if key not in {"HostConfig", "NetworkingConfig"}}
    specifier = call.text("platform")
    wanted = oci_platform.parse(specifier) if specifier else None
    created = await verb(call.text("name") or None, config, host_config, networking, wanted)
    warnings: list[JsonValue] = list(created.warnings)
    return json_reply({"Id": created.id, "Warnings": warnings}, 201)


async def inspect(call: Call) -> Answer:
    found = await call.verb(call.services.inspect)(call.names["id"], call.flag("size"))
    return json_reply(older(Body.CONTAINER_INSPECT, call.version, found))


async def start(call: Call) -> Answer:
    verb = call.verb(call.services.start)
    body = (await call.request.read(1 << 20)).strip()
    if body not in {b"", b"{}", b"null"}:
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await verb(call.names["id"])
    return _NO_CONTENT


async def stop(call: Call) -> Answer:
    await call.verb(call.services.stop)(call.names["id"], _stop_signal(call), call.number("t"))
    return _NO_CONTENT


async def restart(call: Call) -> Answer:
    await call.verb(call.services.restart)(call.names["id"], _stop_signal(call), call.number("t"))
    return _NO_CONTENT


async def kill(call: Call) -> Answer:
    await call.verb(call.services.kill)(call.names["id"], call.text("signal") or "SIGKILL")
    return _NO_CONTENT


async def pause(call: Call) -> Answer:
    await call.verb(call.services.pause)(call.names["id"])
    return _NO_CONTENT


async def unpause(call: Call) -> Answer:
    await call.verb(call.services.unpause)(call.names["id"])
    return _NO_CONTENT


async def rename(call: Call) -> Answer:
    name = call.text("name")
    if not name:
        raise InvalidArgument("Neither old nor new names may be empty")
    await call.verb(call.services.rename)(call.names["id"], name)
    return _NO_CONTENT


async def update(call: Call) -> Answer:
    verb = call.verb(call.services.update)
    warnings: list[JsonValue] = list(await verb(call.names["id"], await call.json()))
    return json_reply({"Warnings": warnings})


async def remove(call: Call) -> Answer:
    if call.flag("link"):
        raise InvalidArgument("legacy container links are not supported: remove without link")
    await call.verb(call.services.remove)(call.names["id"], call.flag("force"), call.flag("v"))
    return _NO_CONTENT


async def wait(call: Call) -> Answer:
    verb = call.verb(call.services.wait)
    condition = call.text("condition") if call.version >= WAIT_CONDITION_SINCE else ""
    ended = await verb.subscribe(call.names["id"], condition or "not-running")
    call.request.end_with_client()
    stream = call.request.stream(200, [("Content-Type", "application/json")])
    if call.version >= WAIT_CONDITION_SINCE:
        await stream.begin()  # the client starts the container when it knows that somebody waits
    result = await ended
    answer: JsonObject = {"StatusCode": result.status_code}
    if result.error:
        answer["Error"] = {"Message": result.error}
    await stream.write(json_reply(answer).body)
    await stream.end()
    return stream


async def top(call: Call) -> Answer:
    return json_reply(await call.verb(call.services.top)(call.names["id"], call.text("ps_args") or "-ef"))


async def changes(call: Call) -> Answer:
    found: list[JsonValue] = list(await call.verb(call.services.changes)(call.names["id"]))
    return json_reply(found)


def _stop_signal(call: Call) -> str | None:
    return call.text("signal") or None if call.version >= _STOP_SIGNAL_SINCE else None


ROWS = (
    Route("GET", "/containers/json", listing, "ContainerList"),
    Route("POST", "/containers/create", create, "ContainerCreate"),
    Route("GET", "/containers/{id}/json", inspect, "ContainerInspect"),
    Route("GET", "/containers/{id}/top", top, "ContainerTop"),
    Route("GET", "/containers/{id}/changes", changes, "ContainerChanges"),
    Route("POST", "/containers/{id}/start", start, "ContainerStart"),
    Route("POST", "/containers/{id}/stop", stop, "ContainerStop"),
    Route("POST", "/containers/{id}/restart", restart, "ContainerRestart"),
    Route("POST", "/containers/{id}/kill", kill, "ContainerKill"),
    Route("POST", "/containers/{id}/update", update, "ContainerUpdate"),
    Route("POST", "/containers/{id}/rename", rename, "ContainerRename"),
    Route("POST", "/containers/{id}/pause", pause, "ContainerPause"),
    Route("POST", "/containers/{id}/unpause", unpause, "ContainerUnpause"),
    Route("POST", "/containers/{id}/wait", wait, "ContainerWait"),
    Route("DELETE", "/containers/{id}", remove, "ContainerDelete"),
)
