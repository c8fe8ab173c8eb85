"""What the events of a container say (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lamina.containers.record import Container
from lamina.jsonvalue import mapping, string_map, text

_DRIVERS = {"host": "host", "none": "null"}


def attributes_of(container: Container, more: Mapping[str, str]) -> dict[str, str]:
    """Its labels, then its image and name, then `more`."""
    return {
        **string_map(container.config, "Labels"),
        "image": text(container.config, "Image"),
        "name": container.name,
        **more,
    }


def networks_of(container: Container) -> Iterator[tuple[str, dict[str, str]]]:
    """(network id, attributes) of each network that it is on, for "connect" and "disconnect"."""
    networks = mapping(container.network_settings, "Networks")
    for name in networks:
        network_id = text(mapping(networks, name), "NetworkID")
        if network_id:
            yield network_id, {"container": container.id, "name": name, "type": _DRIVERS.get(name, "bridge")}
