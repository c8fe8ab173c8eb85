"""What was asked for: `Config` and `HostConfig` with Docker's keys, order, types and defaults (pure).

Rules for editors: the tables are the shape that inspect shows and that config.v2.json and hostconfig.json hold. A key
that is not in them is dropped, as Go drops it.

Source: moby api/types/container (Config, HostConfig), daemon/daemon_unix.go (adaptContainerSettings).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lamina.containers import capabilities
from lamina.containers.spec import DEFAULT_SHM_BYTES, MASKED_PATHS, READONLY_PATHS
from lamina.errors import InvalidArgument
from lamina.jsonvalue import (
    JsonObject,
    JsonValue,
    boolean,
    from_strings,
    integer,
    items,
    mapping,
    objects,
    string_map,
    strings,
    text,
)

_Check = Callable[[JsonObject, str], object]


def _flag(obj: JsonObject, key: str) -> bool:
    return boolean(obj, key)


def _any(_obj: JsonObject, _key: str) -> None:
    """Looked at where it is used."""


@dataclass(frozen=True, slots=True)
class _Key:
    """`check` raises on another type; `default` stands for missing and, unless it is None, for null."""

    check: _Check
    default: JsonValue = None
    omit_empty: bool = False


_TEXT = _Key(text, "")
_NUMBER = _Key(integer, 0)
_FLAG = _Key(_flag, default=False)
_STRINGS = _Key(strings)
_OBJECTS = _Key(objects)

CONFIG_KEYS: Mapping[str, _Key] = {
    "Hostname": _TEXT,
    "Domainname": _TEXT,
    "User": _TEXT,
    "AttachStdin": _FLAG,
    "AttachStdout": _FLAG,
    "AttachStderr": _FLAG,
    "ExposedPorts": _Key(mapping, omit_empty=True),
    "Tty": _FLAG,
    "OpenStdin": _FLAG,
    "StdinOnce": _FLAG,
    "Env": _STRINGS,
    "Cmd": _STRINGS,
    "Healthcheck": _Key(mapping, omit_empty=True),
    "ArgsEscaped": _Key(_flag, omit_empty=True),
    "Image": _TEXT,
    "Volumes": _Key(mapping),
    "WorkingDir": _TEXT,
    "Entrypoint": _STRINGS,
    "NetworkDisabled": _Key(_flag, omit_empty=True),
    "MacAddress": _Key(text, omit_empty=True),
    "OnBuild": _STRINGS,
    "Labels": _Key(string_map, {}),
    "StopSignal": _Key(text, omit_empty=True),
    "StopTimeout": _Key(integer, omit_empty=True),
    "Shell": _Key(strings, omit_empty=True),
}
HOST_CONFIG_KEYS: Mapping[str, _Key] = {
    "Binds": _STRINGS,
    "ContainerIDFile": _TEXT,
    "LogConfig": _Key(mapping, {}),
    "NetworkMode": _TEXT,
    "PortBindings": _Key(mapping, {}),
    "RestartPolicy": _Key(mapping, {}),
    "AutoRemove": _FLAG,
    "VolumeDriver": _TEXT,
    "VolumesFrom": _STRINGS,
    "CapAdd": _STRINGS,
    "CapDrop": _STRINGS,
    "CgroupnsMode": _TEXT,
    "Dns": _Key(strings, []),
    "DnsOptions": _Key(strings, []),
    "DnsSearch": _Key(strings, []),
    "ExtraHosts": _STRINGS,
    "GroupAdd": _STRINGS,
    "IpcMode": _TEXT,
    "Cgroup": _TEXT,
    "Links": _STRINGS,
    "OomScoreAdj": _NUMBER,
    "PidMode": _TEXT,
    "Privileged": _FLAG,
    "PublishAllPorts": _FLAG,
    "ReadonlyRootfs": _FLAG,
    "SecurityOpt": _STRINGS,
    "StorageOpt": _Key(string_map, omit_empty=True),
    "Tmpfs": _Key(string_map, omit_empty=True),
    "UTSMode": _TEXT,
    "UsernsMode": _TEXT,
    "ShmSize": _NUMBER,
    "Sysctls": _Key(string_map, omit_empty=True),
    "Runtime": _Key(text, omit_empty=True),
    "Annotations": _Key(string_map, omit_empty=True),
    "ConsoleSize": _Key(items, [0, 0]),
    "Isolation": _TEXT,
    "CpuShares": _NUMBER,
    "Memory": _NUMBER,
    "NanoCpus": _NUMBER,
    "CgroupParent": _TEXT,
    "BlkioWeight": _NUMBER,
    "BlkioWeightDevice": _Key(objects, []),
    "BlkioDeviceReadBps": _OBJECTS,
    "BlkioDeviceWriteBps": _OBJECTS,
    "BlkioDeviceReadIOps": _OBJECTS,
    "BlkioDeviceWriteIOps": _OBJECTS,
    "CpuPeriod": _NUMBER,
    "CpuQuota": _NUMBER,
    "CpuRealtimePeriod": _NUMBER,
    "CpuRealtimeRuntime": _NUMBER,
    "CpusetCpus": _TEXT,
    "CpusetMems": _TEXT,
    "Devices": _Key(objects, []),
    "DeviceCgroupRules": _STRINGS,
    "DeviceRequests": _OBJECTS,
    "MemoryReservation": _NUMBER,
    "MemorySwap": _NUMBER,
    "MemorySwappiness": _Key(integer),
    "OomKillDisable": _Key(_flag),
    "PidsLimit": _Key(integer),
    "Ulimits": _Key(objects, []),
    "CpuCount": _NUMBER,
    "CpuPercent": _NUMBER,
    "IOMaximumIOps": _NUMBER,
    "IOMaximumBandwidth": _NUMBER,
    "Mounts": _Key(objects, omit_empty=True),
    "MaskedPaths": _STRINGS,
    "ReadonlyPaths": _STRINGS,
    "Init": _Key(_flag, omit_empty=True),
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What this daemon and host put in where a request says nothing."""

    runtime: str = "runc"
    log_driver: str = "json-file"
    log_options: Mapping[str, str] | None = None
    network_mode: str = "bridge"
    cgroup_version: int = 1
    init: bool = False
    host_name: str = "localhost"


def shaped(obj: JsonObject, keys: Mapping[str, _Key], what: str) -> JsonObject:
    """The known keys in Docker's order, each of the right type.

    Raises:
        InvalidArgument: a value of another type.
    """
    found: JsonObject = {}
    for name, key in keys.items():
        value = obj.get(name)
        try:
            key.check(obj, name)
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid {what}: {error}") from error
        if value is None:
            value = list(key.default) if isinstance(key.default, list) else key.default
        if key.omit_empty and (value is None or value in ("", [], {})):
            continue
        found[name] = dict(value) if isinstance(value, dict) else value
    return found


def complete_config(config: JsonObject, container_id: str, host_config: JsonObject, host_name: str) -> JsonObject:
    """The container's `Config`; `config` is already merged with the image's."""
    found = shaped(config, CONFIG_KEYS, "Config")
    for name in ("Cmd", "Entrypoint", "Shell", "OnBuild", "Env"):
        if found.get(name) is not None:
            found[name] = from_strings(strings(found, name))  # a lone string counts as a list of one
    if not found["Hostname"]:
        found["Hostname"] = host_name if text(host_config, "NetworkMode") == "host" else container_id[:12]
    return found


def complete_host_config(host_config: JsonObject, defaults: Defaults) -> JsonObject:
    """`HostConfig` as inspect shows it: every key there, Docker's defaults put in.

    Raises:
        InvalidArgument: a value of another type, or a capability that does not exist.
    """
    found = shaped(host_config, HOST_CONFIG_KEYS, "HostConfig")
    privileged = boolean(found, "Privileged")
    found["LogConfig"] = _log_config(mapping(found, "LogConfig"), defaults)
    found["RestartPolicy"] = _restart_policy(mapping(found, "RestartPolicy"))
    for name in ("CapAdd", "CapDrop"):
        if found[name] is not None:
            found[name] = from_strings(capabilities.normalise(strings(found, name)))
    _complete_modes(found, defaults)
    _drop_words_for_nothing(found)
    found["ShmSize"] = found["ShmSize"] or DEFAULT_SHM_BYTES
    if not found.get("Runtime"):
        found = _inserted(found, "Runtime", defaults.runtime, before="ConsoleSize")
    if integer(found, "Memory") > 0 and integer(found, "MemorySwap") == 0:
        found["MemorySwap"] = integer(found, "Memory") * 2
    if found["OomKillDisable"] is None and defaults.cgroup_version == 1:
        found["OomKillDisable"] = False
    if not privileged:
        for name, paths in (("MaskedPaths", MASKED_PATHS), ("ReadonlyPaths", READONLY_PATHS)):
            found[name] = found[name] if found[name] is not None else from_strings(paths)
    if defaults.init and "Init" not in found:
        found["Init"] = True
    return found


def _drop_words_for_nothing(found: JsonObject) -> None:
    """Older clients always send these numbers; Docker keeps null."""
    if integer(found, "MemorySwappiness") == -1:
        found["MemorySwappiness"] = None
    if integer(found, "PidsLimit") <= 0:
        found["PidsLimit"] = None


def _complete_modes(found: JsonObject, defaults: Defaults) -> None:
    if text(found, "NetworkMode") in {"", "default"}:
        found["NetworkMode"] = defaults.network_mode
    own_cgroups = defaults.cgroup_version == 2 and not boolean(found, "Privileged")
    found["CgroupnsMode"] = found["CgroupnsMode"] or ("private" if own_cgroups else "host")
    found["IpcMode"] = found["IpcMode"] or "private"


def _restart_policy(given: JsonObject) -> JsonObject:
    return {"Name": text(given, "Name") or "no", "MaximumRetryCount": integer(given, "MaximumRetryCount")}


def _log_config(given: JsonObject, defaults: Defaults) -> JsonObject:
    kind = text(given, "Type")
    options: Mapping[str, str] = string_map(given, "Config")
    if not kind or kind == defaults.log_driver:
        options = {**(defaults.log_options or {}), **options}
    return {"Type": kind or defaults.log_driver, "Config": dict(options)}


def _inserted(obj: JsonObject, key: str, value: JsonValue, *, before: str) -> JsonObject:
    found: JsonObject = {}
    for name, old in obj.items():
        if name == before:
            found[key] = value
        if name != key:
            found[name] = old
    return found
