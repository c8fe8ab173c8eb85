"""API versions, and what a client of an older one sees and may ask (pure).

Rules for editors: one line in `ANSWERS` or `QUESTIONS` per change: the version that introduced the present form, the
kind of body, what turns the present form into the one before. Lines apply newest first, so each may rely on the form
that the version after its own has. Functions get a body of their own and change it in place.

Source: Docker's API version history.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, JsonValue


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """An API version; compares by number."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


NEWEST = Version(1, 51)
OLDEST = Version(1, 24)


def negotiate(text: str) -> Version:
    """The version of a request path (`1.47`); the newest for an unversioned one (empty).

    Raises:
        InvalidArgument: outside what is served, in Docker's words.
    """
    if not text:
        return NEWEST
    parts = re.fullmatch(r"([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:\.0+)*", text)
    if not parts:
        raise InvalidArgument(f"invalid API version {text[:40]!r}")
    asked = Version(int(parts[1]), int(parts[2] or 0))
    if asked > NEWEST:
        raise InvalidArgument(f"client version {text} is too new. Maximum supported API version is {NEWEST}")
    if asked < OLDEST:
        raise InvalidArgument(
            f"client version {text} is too old. Minimum supported API version is {OLDEST}, "
            "please upgrade your client to a newer version"
        )
    return asked


class Body(Enum):
    """The kinds of bodies that differ between versions."""

    IMAGE_SUMMARY = "image summary"
    IMAGE_INSPECT = "image inspect"
    CONTAINER_SUMMARY = "container summary"
    CONTAINER_INSPECT = "container inspect"
    CONTAINER_CREATE = "container create"
    DISK_USAGE = "disk usage"
    ENGINE = "info"
    NETWORK = "network"


def older(kind: Body, version: Version, body: JsonObject) -> JsonObject:
    """The body as a client of `version` expects it. The one given may be changed."""
    for gone in GONE:
        if gone.kind is kind and version >= gone.since:
            gone.undo(body)
    for change in ANSWERS:
        if change.kind is kind and version < change.since:
            change.undo(body)
    return body


def newer(kind: Body, version: Version, body: JsonObject) -> JsonObject:
    """A request body of `version` with the present meaning. The one given may be changed."""
    for change in QUESTIONS:
        if change.kind is kind and version < change.since:
            change.undo(body)
    return body


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two versions."""

    since: Version
    kind: Body
    undo: Callable[[JsonObject], None]


def without(*keys: str) -> Callable[[JsonObject], None]:
    """The keys did not exist."""

    def undo(body: JsonObject) -> None:
        for key in keys:
            body.pop(key, None)

    return undo


def with_default(key: str, value: JsonValue) -> Callable[[JsonObject], None]:
    """The key always existed."""

    def undo(body: JsonObject) -> None:
        body.setdefault(key, value)

    return undo


def inside(key: str, change: Callable[[JsonObject], None]) -> Callable[[JsonObject], None]:
    """The change is to an object within the body."""

    def undo(body: JsonObject) -> None:
        inner = body.get(key)
        if isinstance(inner, dict):
            change(inner)

    return undo


def each(key: str, change: Callable[[JsonObject], None]) -> Callable[[JsonObject], None]:
    """The change is to every object of a list within the body."""

    def undo(body: JsonObject) -> None:
        inner = body.get(key)
        if isinstance(inner, list):
            for item in inner:
                if isinstance(item, dict):
                    change(item)

    return undo


def _virtual_size(body: JsonObject) -> None:
    body["VirtualSize"] = body.get("Size", 0)


def _dangling_names(body: JsonObject) -> None:
    if not body.get("RepoTags") and not body.get("RepoDigests"):
        body["RepoTags"] = ["<none>:<none>"]
        body["RepoDigests"] = ["<none>@<none>"]


def _image_config_in_full(body: JsonObject) -> None:
    config = body.get("Config")
    if not isinstance(config, dict):
        return
    always: JsonObject = {
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False,
        "AttachStderr": False, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None,
        "Image": "", "Volumes": None, "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
    }  # fmt: skip
    body["Config"] = {**always, **config}


def _builder_size(body: JsonObject) -> None:
    size = 0
    caches = body.get("BuildCache")
    for cache in caches if isinstance(caches, list) else []:
        if isinstance(cache, dict):
            used = cache.get("Size")
            size += used if isinstance(used, int) else 0
    body["BuilderSize"] = size


def _security_option_names(body: JsonObject) -> None:
    options = body.get("SecurityOptions")
    if isinstance(options, list):
        # `name=seccomp,profile=builtin` was `seccomp`
        names = [str(option).partition(",")[0].partition("=")[2] or str(option) for option in options]
        body["SecurityOptions"] = list(names)


def _bridge_netfilter(body: JsonObject) -> None:
    body.setdefault("BridgeNfIptables", False)
    body.setdefault("BridgeNfIp6tables", False)


def _old_registry_lists(body: JsonObject) -> None:
    body.setdefault("AllowNondistributableArtifactsCIDRs", [])
    body.setdefault("AllowNondistributableArtifactsHostnames", [])


def _ipc_mode(body: JsonObject) -> None:
    host_config = body.get("HostConfig")
    if isinstance(host_config, dict) and not host_config.get("IpcMode"):
        host_config["IpcMode"] = "shareable"


def _v(minor: int) -> Version:
    return Version(1, minor)


ANSWERS: tuple[Change, ...] = (
    Change(_v(50), Body.IMAGE_INSPECT, _image_config_in_full),
    Change(_v(50), Body.ENGINE, without("DiscoveredDevices")),
    Change(_v(50), Body.ENGINE, _bridge_netfilter),
    Change(_v(49), Body.ENGINE, without("FirewallBackend")),
    Change(_v(49), Body.ENGINE, inside("RegistryConfig", _old_registry_lists)),
    Change(_v(48), Body.IMAGE_SUMMARY, without("Descriptor", "Manifests")),
    Change(_v(48), Body.IMAGE_INSPECT, without("Descriptor", "Manifests")),
    Change(_v(48), Body.CONTAINER_SUMMARY, without("ImageManifestDescriptor")),
    Change(_v(48), Body.CONTAINER_INSPECT, without("ImageManifestDescriptor")),
    Change(_v(48), Body.NETWORK, without("EnableIPv4")),
    Change(_v(46), Body.ENGINE, without("Containerd")),
    Change(_v(46), Body.CONTAINER_SUMMARY, inside("HostConfig", without("Annotations"))),
    Change(_v(45), Body.IMAGE_INSPECT, with_default("Container", "")),
    Change(_v(45), Body.IMAGE_INSPECT, with_default("ContainerConfig", None)),
    Change(_v(45), Body.CONTAINER_INSPECT, inside("Config", with_default("MacAddress", ""))),
    Change(_v(44), Body.IMAGE_SUMMARY, _virtual_size),
    Change(_v(44), Body.IMAGE_INSPECT, _virtual_size),
    Change(_v(44), Body.DISK_USAGE, each("Images", _virtual_size)),
    Change(_v(44), Body.ENGINE, without("CDISpecDirs")),
    Change(_v(43), Body.IMAGE_SUMMARY, _dangling_names),
    Change(_v(42), Body.DISK_USAGE, _builder_size),
    Change(_v(42), Body.ENGINE, with_default("KernelMemory", False)),  # noqa: FBT003 (a JSON value)
    Change(_v(42), Body.ENGINE, with_default("ClusterStore", "")),
    Change(_v(42), Body.ENGINE, with_default("ClusterAdvertise", "")),
    Change(_v(25), Body.ENGINE, _security_option_names),
    Change(_v(25), Body.ENGINE, with_default("ExecutionDriver", "<not supported>")),
)
"""What older clients see, newest change first."""

GONE: tuple[Change, ...] = (
    Change(_v(44), Body.IMAGE_SUMMARY, without("VirtualSize")),
    Change(_v(44), Body.IMAGE_INSPECT, without("VirtualSize")),
    Change(_v(45), Body.IMAGE_INSPECT, without("Container", "ContainerConfig")),
    Change(_v(50), Body.ENGINE, without("BridgeNfIptables", "BridgeNfIp6tables")),
)
"""What verbs may still tell and newer clients do not see."""

QUESTIONS: tuple[Change, ...] = (
    Change(_v(44), Body.CONTAINER_CREATE, inside("Healthcheck", without("StartInterval"))),
    Change(_v(43), Body.CONTAINER_CREATE, inside("HostConfig", without("Annotations"))),
    Change(_v(42), Body.CONTAINER_CREATE, inside("HostConfig", without("ConsoleSize"))),
    Change(_v(41), Body.CONTAINER_CREATE, inside("HostConfig", without("CgroupnsMode"))),
    Change(_v(40), Body.CONTAINER_CREATE, _ipc_mode),
    Change(_v(25), Body.CONTAINER_CREATE, without("StopTimeout")),
    Change(_v(25), Body.CONTAINER_CREATE, inside("HostConfig", without("AutoRemove"))),
)
"""What older clients could not ask, or meant by leaving out, newest change first."""

MULTIPLEXED_SINCE = _v(42)
"""From here on a stream that is framed says so in its Content-Type."""
WAIT_CONDITION_SINCE = _v(30)
"""From here on wait knows conditions, and sends its head at once."""
PRUNE_SINCE = _v(25)
