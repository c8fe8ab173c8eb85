"""Containers as the Engine API shows them: list entries and inspect (pure).

Source: Engine API 1.51, ContainerSummary and ContainerInspectResponse; moby container/state.go (String),
docker/go-units duration.go (HumanDuration); key order as Go prints it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from lamina.jsonvalue import JsonObject, JsonValue, from_strings

ZERO_TIME = "0001-01-01T00:00:00Z"
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")
_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONG_AGO_NS = -(1 << 62)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateView:
    """A container's state; `status` is one of Docker's words. Times are RFC 3339, `ZERO_TIME` for never."""

    status: str
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    health: JsonValue = None

    @property
    def running(self) -> bool:
        """Docker counts a paused or restarting container as running."""
        return self.status in {"running", "paused", "restarting"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MountView:
    """One mount of a container."""

    type: str
    source: str
    destination: str
    rw: bool
    name: str = ""
    driver: str = ""
    mode: str = ""
    propagation: str = ""

    def encode(self) -> JsonObject:
        found: JsonObject = {"Type": self.type}
        if self.name:
            found["Name"] = self.name
        found["Source"] = self.source
        found["Destination"] = self.destination
        if self.driver:
            found["Driver"] = self.driver
        found.update({"Mode": self.mode, "RW": self.rw, "Propagation": self.propagation})
        return found


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes written by the container, and of its whole root."""

    rw_bytes: int
    root_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerView:
    """What list and inspect show of one container. `name` has no slash; `image` is what the list calls it."""

    id: str
    name: str
    created: str
    path: str
    args: Sequence[str]
    state: StateView
    image: str
    image_id: str
    config: JsonObject
    host_config: JsonObject
    network_settings: JsonObject
    mounts: Sequence[MountView] = ()
    driver: str = ""
    driver_data: Mapping[str, str] | None = None
    log_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    resolv_conf_path: str = ""
    restart_count: int = 0
    exec_ids: Sequence[str] = ()
    apparmor: str = ""
    os: str = "linux"
    labels: Mapping[str, str] = field(default_factory=dict)
    network_mode: str = ""
    sizes: Sizes | None = None


def encode_summary(view: ContainerView, now_ns: int) -> JsonObject:
    """One entry of the list."""
    found: JsonObject = {
        "Id": view.id,
        "Names": [f"/{view.name}"],
        "Image": view.image,
        "ImageID": view.image_id,
        "Command": command_line(view.path, view.args),
        "Created": max(0, epoch_ns(view.created) // _NS),
        "Ports": [],
    }
    if view.sizes is not None:
        if view.sizes.rw_bytes:
            found["SizeRw"] = view.sizes.rw_bytes
        if view.sizes.root_bytes:
            found["SizeRootFs"] = view.sizes.root_bytes
    found["Labels"] = dict(view.labels)
    found["State"] = view.state.status
    found["Status"] = status_text(view.state, now_ns)
    found["HostConfig"] = {"NetworkMode": view.network_mode}
    found["NetworkSettings"] = {"Networks": _endpoints(view.network_settings)}
    found["Mounts"] = [mount.encode() for mount in view.mounts]
    return found


def encode_inspect(view: ContainerView) -> JsonObject:
    """The answer of inspect."""
    found: JsonObject = {
        "Id": view.id,
        "Created": view.created,
        "Path": view.path,
        "Args": from_strings(view.args),
        "State": _state(view.state),
        "Image": view.image_id,
        "ResolvConfPath": view.resolv_conf_path,
        "HostnamePath": view.hostname_path,
        "HostsPath": view.hosts_path,
        "LogPath": view.log_path,
        "Name": f"/{view.name}",
        "RestartCount": view.restart_count,
        "Driver": view.driver,
        "Platform": view.os,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": view.apparmor,
        "ExecIDs": from_strings(view.exec_ids) if view.exec_ids else None,
        "HostConfig": view.host_config,
        "GraphDriver": {
            "Data": None if view.driver_data is None else dict(view.driver_data),
            "Name": view.driver,
        },
    }
    if view.sizes is not None:
        found["SizeRw"] = view.sizes.rw_bytes
        found["SizeRootFs"] = view.sizes.root_bytes
    found["Mounts"] = [mount.encode() for mount in view.mounts]
    found["Config"] = view.config
    found["NetworkSettings"] = network_settings(view.network_settings)
    return found


def _state(state: StateView) -> JsonObject:
    found: JsonObject = {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    if state.health is not None:
        found["Health"] = state.health
    return found


_ADDRESS_KEYS: JsonObject = {
    "EndpointID": "",
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}


def network_settings(kept: JsonObject) -> JsonObject:
    """Kept settings, ours or dockerd's, in the API's shape: the default network's addresses also at the top."""
    found: JsonObject = {
        key: kept.get(key, default)
        for key, default in (
            ("Bridge", ""),
            ("SandboxID", ""),
            ("SandboxKey", ""),
            ("Ports", {}),
            ("HairpinMode", False),
            ("LinkLocalIPv6Address", ""),
            ("LinkLocalIPv6PrefixLen", 0),
            ("SecondaryIPAddresses", None),
            ("SecondaryIPv6Addresses", None),
        )
    }
    if found["Ports"] is None:
        found["Ports"] = {}
    endpoints = _endpoints(kept)
    bridge = endpoints.get("bridge")
    default = bridge if isinstance(bridge, dict) else {}
    for key, empty in _ADDRESS_KEYS.items():
        found[key] = default.get(key) or kept.get(key) or empty
    found["Networks"] = endpoints
    return found


def _endpoints(kept: JsonObject) -> JsonObject:
    networks = kept.get("Networks")
    if not isinstance(networks, dict):
        return {}
    # dockerd keeps its own bookkeeping among the keys of the API.
    return {
        name: {key: value for key, value in one.items() if key != "IPAMOperational"} if isinstance(one, dict) else {}
        for name, one in networks.items()
    }


def command_line(path: str, args: Sequence[str]) -> str:
    """The command as the list shows it: arguments with blanks in quotes."""
    return " ".join([path, *(f"'{arg}'" if " " in arg else arg for arg in args)])


def status_text(state: StateView, now_ns: int) -> str:
    """What `docker ps` shows: `Up 3 seconds`, `Exited (0) 5 minutes ago`, `Created`."""
    since_start = human_duration(now_ns - epoch_ns(state.started_at))
    since_end = human_duration(now_ns - epoch_ns(state.finished_at))
    match state.status:
        case "paused":
            return f"Up {since_start} (Paused)"
        case "restarting":
            return f"Restarting ({state.exit_code}) {since_end} ago"
        case "running":
            return f"Up {since_start}{_health(state.health)}"
        case "removing":
            return "Removal In Progress"
        case "dead":
            return "Dead"
        case "created":
            return "Created"
        case _:
            return "" if state.finished_at == ZERO_TIME else f"Exited ({state.exit_code}) {since_end} ago"


def _health(health: JsonValue) -> str:
    status = health.get("Status") if isinstance(health, dict) else None
    if not isinstance(status, str) or status in {"", "none"}:
        return ""
    return " (health: starting)" if status == "starting" else f" ({status})"


def human_duration(duration_ns: int) -> str:
    """A span of time in one rounded unit."""
    seconds = duration_ns // _NS
    minutes = seconds // 60
    hours = (duration_ns + 1800 * _NS) // (3600 * _NS)
    steps = (
        (seconds < 1, "Less than a second"),
        (seconds == 1, "1 second"),
        (seconds < 60, f"{seconds} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 7 * 2, f"{hours // 24} days"),
        (hours < 24 * 30 * 2, f"{hours // 24 // 7} weeks"),
        (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    )
    return next((words for fits, words in steps if fits), f"{seconds // 3600 // 24 // 365} years")


@lru_cache(maxsize=4096)  # lists ask for the same times again and again
def epoch_ns(stamp: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; far in the past for one that cannot be read."""
    match = _RFC3339.fullmatch(stamp)
    if match is None:
        return _LONG_AGO_NS
    try:
        moment = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    except ValueError:
        return _LONG_AGO_NS
    return (moment - _EPOCH) // timedelta(seconds=1) * _NS + int((match[2] or "").ljust(9, "0"))
