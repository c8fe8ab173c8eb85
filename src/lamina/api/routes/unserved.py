"""Operations that are known and not built: each answers 501 and names itself (async)."""

from __future__ import annotations

from lamina.api.routing import Call, Route, not_served
from lamina.http.exchange import Answer
from lamina.wire.engine.versions import OLDEST, PRUNE_SINCE, Version


async def refuse(call: Call) -> Answer:
    raise not_served(call.operation)


def _row(method: str, path: str, operation: str, minor: int = OLDEST.minor) -> Route:
    return Route(method, path, refuse, operation, Version(1, minor))


_PRUNE = PRUNE_SINCE.minor

ROWS = (
    _row("GET", "/containers/{id}/attach/ws", "ContainerAttachWebsocket"),
    _row("POST", "/build", "ImageBuild"),
    _row("POST", "/build/prune", "BuildPrune", 31),
    _row("GET", "/images/search", "ImageSearch"),
    _row("POST", "/session", "Session", 31),
    _row("POST", "/grpc", "BuildKit", 31),
    _row("PUT", "/volumes/{name}", "VolumeUpdate", 42),
    _row("DELETE", "/networks/{id}", "NetworkDelete"),
    _row("POST", "/networks/create", "NetworkCreate"),
    _row("POST", "/networks/{id}/connect", "NetworkConnect"),
    _row("POST", "/networks/{id}/disconnect", "NetworkDisconnect"),
    _row("POST", "/networks/prune", "NetworkPrune", _PRUNE),
    _row("GET", "/plugins/privileges", "GetPluginPrivileges", 25),
    _row("POST", "/plugins/pull", "PluginPull", 25),
    _row("POST", "/plugins/create", "PluginCreate", 25),
    _row("DELETE", "/plugins/{name}", "PluginDelete", 25),
    _row("POST", "/plugins/{name}/enable", "PluginEnable", 25),
    _row("POST", "/plugins/{name}/disable", "PluginDisable", 25),
    _row("POST", "/plugins/{name}/upgrade", "PluginUpgrade", 26),
    _row("POST", "/plugins/{name}/push", "PluginPush", 25),
    _row("POST", "/plugins/{name}/set", "PluginSet", 25),
    _row("GET", "/nodes", "NodeList"),
    _row("GET", "/nodes/{id}", "NodeInspect"),
    _row("DELETE", "/nodes/{id}", "NodeDelete"),
    _row("POST", "/nodes/{id}/update", "NodeUpdate"),
    _row("GET", "/swarm", "SwarmInspect"),
    _row("POST", "/swarm/init", "SwarmInit"),
    _row("POST", "/swarm/join", "SwarmJoin"),
    _row("POST", "/swarm/leave", "SwarmLeave"),
    _row("POST", "/swarm/update", "SwarmUpdate"),
    _row("GET", "/swarm/unlockkey", "SwarmUnlockkey"),
    _row("POST", "/swarm/unlock", "SwarmUnlock"),
    _row("GET", "/services", "ServiceList"),
    _row("POST", "/services/create", "ServiceCreate"),
    _row("GET", "/services/{id}", "ServiceInspect"),
    _row("DELETE", "/services/{id}", "ServiceDelete"),
    _row("POST", "/services/{id}/update", "ServiceUpdate"),
    _row("GET", "/services/{id}/logs", "ServiceLogs", 29),
    _row("GET", "/tasks", "TaskList"),
    _row("GET", "/tasks/{id}", "TaskInspect"),
    _row("GET", "/tasks/{id}/logs", "TaskLogs", 29),
    _row("GET", "/secrets", "SecretList", 25),
    _row("POST", "/secrets/create", "SecretCreate", 25),
    _row("GET", "/secrets/{id}", "SecretInspect", 25),
    _row("DELETE", "/secrets/{id}", "SecretDelete", 25),
    _row("POST", "/secrets/{id}/update", "SecretUpdate", 26),
    _row("GET", "/configs", "ConfigList", 30),
    _row("POST", "/configs/create", "ConfigCreate", 30),
    _row("GET", "/configs/{id}", "ConfigInspect", 30),
    _row("DELETE", "/configs/{id}", "ConfigDelete", 30),
    _row("POST", "/configs/{id}/update", "ConfigUpdate", 30),
)
