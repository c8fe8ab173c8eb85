"""Device nodes of a container, and the cgroup rules for them (pure).

Source: runtime-spec config-linux.md "Devices", "Allowed Device list"; moby oci/devices_linux.go, oci/oci.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
_ACCESS = re.compile(r"[rwm]{1,3}")


@dataclass(frozen=True, slots=True)
class Device:
    """A node at `path` inside; `kind` is `c` or `b`; `access` is what the cgroup allows: some of `rwm`."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


def device_entry(device: Device) -> JsonObject:
    """One entry of `linux.devices`."""
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


_CHARACTER_DEVICES = ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
"""zero, null, urandom, random, tty, console."""


def cgroup_rules(devices: Iterable[Device], rules: Iterable[str]) -> list[JsonObject]:
    """Deny all, then what every container may use, then its own devices and rules."""
    found = [_rule(allow=False, kind="a", access="rwm")]
    for major, minor in _CHARACTER_DEVICES:
        found.append(_rule(allow=True, kind="c", access="rwm", major=major, minor=minor))
    found.append(_rule(allow=False, kind="c", access="rwm", major=10, minor=229))  # /dev/fuse
    found.extend(
        _rule(allow=True, kind=device.kind, access=device.access, major=device.major, minor=device.minor)
        for device in devices
    )
    found.extend(parse_rule(text) for text in rules)
    return found


def everything_rule() -> list[JsonObject]:
    """The rule of a privileged container."""
    return [_rule(allow=True, kind="a", access="rwm")]


def parse_rule(text: str) -> JsonObject:
    """One `--device-cgroup-rule`, such as `c 1:3 mr`.

    Raises:
        InvalidArgument: another form.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text[:80]}'")
    kind, major, minor, access = match.groups()
    return _rule(
        allow=True,
        kind=kind,
        access=access,
        major=None if major == "*" else int(major),
        minor=None if minor == "*" else int(minor),
    )


def parse_access(text: str) -> str:
    """The permissions of a `--device`.

    Raises:
        InvalidArgument: others than `r`, `w`, `m`.
    """
    if not _ACCESS.fullmatch(text):
        raise InvalidArgument(f"invalid device mode: {text[:80]}")
    return text


def _rule(*, allow: bool, kind: str, access: str, major: int | None = None, minor: int | None = None) -> JsonObject:
    found: JsonObject = {"allow": allow}
    if kind != "a":
        found["type"] = kind
    if major is not None:
        found["major"] = major
    if minor is not None:
        found["minor"] = minor
    found["access"] = access
    return found
