"""`NetworkSettings` of a container and the body of a network, in Docker's shape (pure).

Source: moby container.NetworkSettings as stored in config.v2.json, and the Engine API's NetworkSettings; one object
serves both, because each reader ignores the keys of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface

from lamina.jsonvalue import JsonObject, JsonValue


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's end of a network. `address` is None on the networks `host` and `none`."""

    network: str
    network_id: str
    endpoint_id: str
    address: IPv4Interface | None = None
    gateway: IPv4Address | None = None
    mac: str = ""


def network_settings(endpoint: Endpoint | None, *, sandbox_id: str = "", sandbox_key: str = "") -> JsonObject:
    """The settings of a container with one endpoint, or of one that shares another container's network (None)."""
    networks: JsonObject = {} if endpoint is None else {endpoint.network: _endpoint_settings(endpoint)}
    address, prefix, gateway, mac, endpoint_id = "", 0, "", "", ""
    if endpoint is not None and endpoint.address is not None:
        address, prefix = str(endpoint.address.ip), endpoint.address.network.prefixlen
        gateway, mac, endpoint_id = str(endpoint.gateway or ""), endpoint.mac, endpoint.endpoint_id
    return {
        "Bridge": "",
        "SandboxID": sandbox_id,
        "SandboxKey": sandbox_key,
        "Ports": {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": endpoint_id,
        "Gateway": gateway,
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": address,
        "IPPrefixLen": prefix,
        "IPv6Gateway": "",
        "MacAddress": mac,
        "Networks": networks,
    }


def without_addresses(settings: Mapping[str, JsonValue]) -> JsonObject:
    """What stays of the settings when the container has ended: the networks it is on, without any address."""
    left: JsonObject = dict(settings)
    for key, value in _NO_ADDRESS.items():
        if key in left:
            left[key] = value
    left["Ports"] = {}
    networks = settings.get("Networks")
    if isinstance(networks, dict):
        left["Networks"] = {
            name: {**one, **_NO_ADDRESS} if isinstance(one, dict) else one for name, one in networks.items()
        }
    return left


_NO_ADDRESS: JsonObject = {
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "MacAddress": "",
}


def stored_endpoint(settings: Mapping[str, JsonValue], network: str) -> Endpoint | None:
    """The endpoint that stored settings describe, or None when they hold no valid address on `network`.

    The settings come from a file that another program may have written: whatever does not fit counts as no endpoint.
    """
    networks = settings.get("Networks")
    one = networks.get(network) if isinstance(networks, dict) else None
    if not isinstance(one, dict):
        return None
    address, prefix, gateway = one.get("IPAddress"), one.get("IPPrefixLen"), one.get("Gateway")
    if not isinstance(address, str) or not isinstance(prefix, int) or not address:
        return None
    try:
        interface = IPv4Interface((address, prefix))
        by = IPv4Address(gateway) if isinstance(gateway, str) and gateway else None
    except (AddressValueError, ValueError):
        return None
    network_id, endpoint_id, mac = (_text(one.get(key)) for key in ("NetworkID", "EndpointID", "MacAddress"))
    return Endpoint(network, network_id, endpoint_id, address=interface, gateway=by, mac=mac)


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


def _endpoint_settings(endpoint: Endpoint) -> JsonObject:
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": endpoint.mac,
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": str(endpoint.gateway or ""),
        "IPAddress": str(endpoint.address.ip) if endpoint.address else "",
        "IPPrefixLen": endpoint.address.network.prefixlen if endpoint.address else 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def network_body(
    name: str,
    network_id: str,
    created: str,
    *,
    gateway: IPv4Interface | None,
    options: Mapping[str, str],
    endpoints: Mapping[str, Endpoint],
) -> JsonObject:
    """A network as `GET /networks/{id}` shows it. `endpoints` by container id; the caller fills in their names."""
    config: list[JsonValue] = []
    if gateway is not None:
        config.append({"Subnet": str(gateway.network), "Gateway": str(gateway.ip)})
    containers: JsonObject = {
        container: {
            "Name": "",
            "EndpointID": endpoint.endpoint_id,
            "MacAddress": endpoint.mac,
            "IPv4Address": str(endpoint.address) if endpoint.address else "",
            "IPv6Address": "",
        }
        for container, endpoint in endpoints.items()
    }
    return {
        "Name": name,
        "Id": network_id,
        "Created": created,
        "Scope": "local",
        "Driver": "null" if name == "none" else name,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": config},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": containers,
        "Options": dict(options),
        "Labels": {},
    }
