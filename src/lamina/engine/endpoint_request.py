"""What a create request says about networks: `NetworkingConfig` (pure).

Only the networks bridge, host and none exist so far; a place on another network is refused by name.
"""

from __future__ import annotations

import re

from lamina.errors import InvalidArgument, NotServed
from lamina.jsonvalue import JsonObject, mapping, strings, text
from lamina.networks.settings import Endpoint, network_settings

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_KNOWN = {"default", "bridge", "host", "none"}


def mac_address(networking: JsonObject) -> str:
    """The hardware address asked for in an endpoint; empty when none is.

    Raises:
        InvalidArgument: no hardware address.
    """
    for name in mapping(networking, "EndpointsConfig"):
        mac = text(mapping(mapping(networking, "EndpointsConfig"), name), "MacAddress")
        if mac and not _MAC.fullmatch(mac):
            raise InvalidArgument(f"invalid MAC address: {mac[:80]}")
        if mac:
            return mac
    return ""


def network_settings_of(mode: str, networking: JsonObject) -> JsonObject:
    """`NetworkSettings` of a container that has not been started.

    Raises:
        InvalidArgument: an address or alias on a network that has none.
        NotServed: another network.
    """
    for name, endpoint in mapping(networking, "EndpointsConfig").items():
        if name not in _KNOWN and name != mode:
            raise NotServed(f"user-defined networks are not served yet: network {name[:80]}")
        _check_endpoint(endpoint if isinstance(endpoint, dict) else {})
    if mode.startswith("container:"):
        return network_settings(None)
    return network_settings(Endpoint(mode, "", ""))


def _check_endpoint(endpoint: JsonObject) -> None:
    addresses = mapping(endpoint, "IPAMConfig")
    if text(addresses, "IPv4Address") or text(addresses, "IPv6Address"):
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    if strings(endpoint, "Aliases"):
        raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")
    if strings(endpoint, "Links"):
        raise NotServed("links between containers are not served")
