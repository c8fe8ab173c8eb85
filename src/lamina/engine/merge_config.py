"""An image's run config under a container's own (pure).

The same rules serve create (image below, request above) and commit (container below, changes above).
Source: moby runconfig/merge.go, daemon/commit.go.
"""

from __future__ import annotations

from lamina.jsonvalue import JsonObject, JsonValue, integer, mapping, string_map, strings, text

_HEALTH_TIMES = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


def merge_config(own: JsonObject, below: JsonObject) -> JsonObject:
    """`own` with what it leaves open taken from `below`. Neither is changed.

    What is not named here (hostname, terminal, on-build, …) is never taken over.
    """
    found: JsonObject = dict(own)
    for key in ("User", "WorkingDir", "StopSignal"):
        if not text(own, key) and text(below, key):
            found[key] = text(below, key)
    for key in ("ExposedPorts", "Volumes"):
        union: JsonObject = {**mapping(own, key), **mapping(below, key)}
        if union:
            found[key] = union
    labels = {**string_map(below, "Labels"), **string_map(own, "Labels")}
    found["Labels"] = dict(labels)
    found["Env"] = _env(own, below)
    if not strings(own, "Entrypoint"):
        # An own command runs under the image's entrypoint; an own entrypoint never gets the image's command.
        if not strings(own, "Cmd"):
            found["Cmd"] = below.get("Cmd")
        if own.get("Entrypoint") is None:
            found["Entrypoint"] = below.get("Entrypoint")
    _merge_health(found, own, below)
    return found


def _env(own: JsonObject, below: JsonObject) -> list[JsonValue]:
    mine = strings(own, "Env")
    names = {entry.partition("=")[0] for entry in mine}
    return [*mine, *(entry for entry in strings(below, "Env") if entry.partition("=")[0] not in names)]


def _merge_health(found: JsonObject, own: JsonObject, below: JsonObject) -> None:
    base, mine = mapping(below, "Healthcheck"), mapping(own, "Healthcheck")
    if not base:
        return
    if not mine:
        found["Healthcheck"] = dict(base)
        return
    merged: JsonObject = dict(mine)
    if not strings(mine, "Test") and base.get("Test") is not None:
        merged["Test"] = base["Test"]
    for key in _HEALTH_TIMES:
        if not integer(mine, key) and integer(base, key):
            merged[key] = integer(base, key)
    found["Healthcheck"] = merged
