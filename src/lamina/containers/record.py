"""What is kept of one container, and its two files as dockerd writes them (blocking colour; no I/O of its own).

`Config`, `HostConfig` and `NetworkSettings` are passed through as JSON objects, so keys of other versions survive; so
do unknown keys beside the ones that are fields here (`extra`). Key order is that of dockerd 20.10.

Source: moby container/container.go (`Container`), container/state.go, volume/mounts/mounts.go (`MountPoint`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lamina.clock import ZERO_TIME
from lamina.containers.state import Status
from lamina.errors import CorruptRecord, InvalidArgument
from lamina.ids import ContainerId
from lamina.jsonvalue import (
    JsonObject,
    JsonValue,
    boolean,
    from_strings,
    go_json,
    integer,
    mapping,
    parse_object,
    strings,
    text,
)
from lamina.oci.digest import ImageId, parse_digest

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(eq=False, slots=True)
class State:
    """Where in its life a container is. Times are RFC 3339 text; `ZERO_TIME` means never."""

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    dead: bool = False
    removal_in_progress: bool = False
    health: JsonValue = None
    extra: JsonObject = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class MountPoint:
    """One mount that a container was given.

    `type` is `bind`, `volume` or `tmpfs`; `mode` is the text after the second colon of `-v` (`ro,z`); `spec` is the
    mount as the API gave it; `skip_create` says that a missing bind source is an error instead of being made.
    """

    type: str
    source: str
    destination: str
    rw: bool = True
    name: str = ""
    driver: str = ""
    mode: str = ""
    propagation: str = ""
    spec: JsonObject = field(default_factory=dict)
    skip_create: bool = False
    extra: JsonObject = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Container:
    """Everything the engine knows of one container. `name` has no slash."""

    id: ContainerId
    name: str
    created: str
    path: str
    args: list[str]
    config: JsonObject
    host_config: JsonObject
    image_id: ImageId | None
    driver: str
    state: State = field(default_factory=State)
    mounts: dict[str, MountPoint] = field(default_factory=dict)
    network_settings: JsonObject = field(default_factory=dict)
    log_path: str = ""
    restart_count: int = 0
    has_been_started_before: bool = False
    has_been_manually_stopped: bool = False
    hostname_path: str = ""
    hosts_path: str = ""
    resolv_conf_path: str = ""
    shm_path: str = ""
    extra: JsonObject = field(default_factory=dict)
    """Keys of config.v2.json that are no fields here, as they were read."""


_STATE_FIELDS = """
Running Paused Restarting OOMKilled RemovalInProgress Dead Pid ExitCode Error StartedAt FinishedAt Health
"""
_MOUNT_FIELDS = "Source Destination RW Name Driver Type Relabel Propagation Spec SkipMountpointCreation"
_CONTAINER_FIELDS = """
State ID Created Path Args Config Image NetworkSettings LogPath Name Driver RestartCount HasBeenStartedBefore
HasBeenManuallyStopped MountPoints HostnamePath HostsPath ShmPath ResolvConfPath
"""
_STATE_KEYS = frozenset(_STATE_FIELDS.split())
_MOUNT_KEYS = frozenset(_MOUNT_FIELDS.split())
_CONTAINER_KEYS = frozenset(_CONTAINER_FIELDS.split())


def encode_config_v2(container: Container) -> bytes:
    """The bytes of config.v2.json, newline at the end."""
    rest = dict(container.extra)
    found: JsonObject = {
        "StreamConfig": rest.pop("StreamConfig", {}),
        "State": _encode_state(container.state),
        "ID": container.id,
        "Created": container.created,
        "Managed": rest.pop("Managed", False),
        "Path": container.path,
        "Args": from_strings(container.args),
        "Config": container.config,
        "Image": container.image_id or "",
        "NetworkSettings": container.network_settings,
        "LogPath": container.log_path,
        "Name": f"/{container.name}",
        "Driver": container.driver,
        "OS": rest.pop("OS", "linux"),
        "MountLabel": rest.pop("MountLabel", ""),
        "ProcessLabel": rest.pop("ProcessLabel", ""),
        "RestartCount": container.restart_count,
        "HasBeenStartedBefore": container.has_been_started_before,
        "HasBeenManuallyStopped": container.has_been_manually_stopped,
        "MountPoints": {key: _encode_mount(mount) for key, mount in sorted(container.mounts.items())},
        "SecretReferences": rest.pop("SecretReferences", None),
        "ConfigReferences": rest.pop("ConfigReferences", None),
        "AppArmorProfile": rest.pop("AppArmorProfile", ""),
        "HostnamePath": container.hostname_path,
        "HostsPath": container.hosts_path,
        "ShmPath": container.shm_path,
        "ResolvConfPath": container.resolv_conf_path,
        "SeccompProfile": rest.pop("SeccompProfile", ""),
        "NoNewPrivileges": rest.pop("NoNewPrivileges", False),
        "LocalLogCacheMeta": rest.pop("LocalLogCacheMeta", {"HaveNotifyEnabled": False}),
    }
    found.update(rest)
    return go_json(found) + b"\n"


def encode_host_config(container: Container) -> bytes:
    """The bytes of hostconfig.json, newline at the end."""
    return go_json(container.host_config) + b"\n"


def decode_container(config_v2: bytes, host_config: bytes | None) -> Container:
    """Read the two files; a missing hostconfig.json is an empty one, as for dockerd.

    Raises:
        CorruptRecord: not what dockerd or we write.
    """
    try:
        return _decode(config_v2, host_config)
    except InvalidArgument as error:
        raise CorruptRecord(f"container record cannot be read: {error}") from error


def _decode(config_v2: bytes, host_config: bytes | None) -> Container:
    obj = parse_object(config_v2, what="config.v2.json")
    host = parse_object(host_config, what="hostconfig.json") if host_config is not None else {}
    container_id = text(obj, "ID")
    if not _ID.fullmatch(container_id):
        raise InvalidArgument(f"{container_id[:80]!r} is no container id")
    image = text(obj, "Image")
    return Container(
        id=ContainerId(container_id),
        name=text(obj, "Name").removeprefix("/"),
        created=text(obj, "Created", ZERO_TIME),
        path=text(obj, "Path"),
        args=strings(obj, "Args"),
        config=mapping(obj, "Config"),
        host_config=host,
        image_id=ImageId(parse_digest(image)) if image else None,
        driver=text(obj, "Driver"),
        state=_decode_state(mapping(obj, "State")),
        mounts={
            key: _decode_mount(key, mapping(mapping(obj, "MountPoints"), key)) for key in mapping(obj, "MountPoints")
        },
        network_settings=mapping(obj, "NetworkSettings"),
        log_path=text(obj, "LogPath"),
        restart_count=integer(obj, "RestartCount"),
        has_been_started_before=boolean(obj, "HasBeenStartedBefore"),
        has_been_manually_stopped=boolean(obj, "HasBeenManuallyStopped"),
        hostname_path=text(obj, "HostnamePath"),
        hosts_path=text(obj, "HostsPath"),
        resolv_conf_path=text(obj, "ResolvConfPath"),
        shm_path=text(obj, "ShmPath"),
        extra=_unknown(obj, _CONTAINER_KEYS),
    )


def _encode_state(state: State) -> JsonObject:
    status = state.status
    return {
        "Running": status in {Status.RUNNING, Status.PAUSED, Status.RESTARTING},
        "Paused": status is Status.PAUSED,
        "Restarting": status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "RemovalInProgress": state.removal_in_progress or status is Status.REMOVING,
        "Dead": state.dead or status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
        "Health": state.health,
        **state.extra,
    }


def _decode_state(obj: JsonObject) -> State:
    started_at = text(obj, "StartedAt", ZERO_TIME)
    return State(
        status=_status(obj, started_at),
        pid=integer(obj, "Pid"),
        exit_code=integer(obj, "ExitCode"),
        error=text(obj, "Error"),
        oom_killed=boolean(obj, "OOMKilled"),
        started_at=started_at,
        finished_at=text(obj, "FinishedAt", ZERO_TIME),
        dead=boolean(obj, "Dead"),
        removal_in_progress=boolean(obj, "RemovalInProgress"),
        health=obj.get("Health"),
        extra=_unknown(obj, _STATE_KEYS),
    )


def _status(obj: JsonObject, started_at: str) -> Status:
    """Source: moby container/state.go, StateString."""
    flags = (
        ("Paused", Status.PAUSED),
        ("Restarting", Status.RESTARTING),
        ("Running", Status.RUNNING),
        ("RemovalInProgress", Status.REMOVING),
        ("Dead", Status.DEAD),
    )
    for key, status in flags:
        if boolean(obj, key):
            return status
    return Status.CREATED if started_at == ZERO_TIME else Status.EXITED


def _encode_mount(mount: MountPoint) -> JsonObject:
    rest = dict(mount.extra)
    found: JsonObject = {
        "Source": mount.source,
        "Destination": mount.destination,
        "RW": mount.rw,
        "Name": mount.name,
        "Driver": mount.driver,
        "Type": mount.type,
    }
    if mount.mode:
        found["Relabel"] = mount.mode
    if mount.propagation:
        found["Propagation"] = mount.propagation
    if "ID" in rest:
        found["ID"] = rest.pop("ID")
    found["Spec"] = mount.spec
    found["SkipMountpointCreation"] = mount.skip_create
    found.update(rest)
    return found


def _decode_mount(destination: str, obj: JsonObject) -> MountPoint:
    return MountPoint(
        type=text(obj, "Type"),
        source=text(obj, "Source"),
        destination=text(obj, "Destination") or destination,
        rw=boolean(obj, "RW"),
        name=text(obj, "Name"),
        driver=text(obj, "Driver"),
        mode=text(obj, "Relabel"),
        propagation=text(obj, "Propagation"),
        spec=mapping(obj, "Spec"),
        skip_create=boolean(obj, "SkipMountpointCreation"),
        extra=_unknown(obj, _MOUNT_KEYS),
    )


def _unknown(obj: Mapping[str, JsonValue], known: frozenset[str]) -> JsonObject:
    return {key: value for key, value in obj.items() if key not in known}
