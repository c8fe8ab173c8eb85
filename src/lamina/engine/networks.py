"""List and look at the networks every engine has (async). Making others is not served yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lamina.containers.store import ContainerStore
from lamina.errors import NoSuchContainer
from lamina.jsonvalue import JsonObject, mapping, text
from lamina.networks.networks import Networks
from lamina.wire.engine.filters import Filters, check_names
from lamina.workers import Workers

_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


@dataclass(frozen=True, slots=True)
class ListNetworks:
    """The networks that fit some filters."""

    networks: Networks
    workers: Workers

    async def __call__(self, filters: Filters) -> list[JsonObject]:
        """Raises InvalidArgument for an unknown filter."""
        check_names(filters, _FILTERS)
        return [network for network in await self.workers.call(self.networks.list) if _fits(network, filters)]


@dataclass(frozen=True, slots=True)
class InspectNetwork:
    """One network with its containers."""

    networks: Networks
    containers: ContainerStore
    workers: Workers

    async def __call__(self, name: str) -> JsonObject:
        """Raises NoSuchNetwork."""
        network = await self.workers.call(self.networks.inspect, name)
        attached = mapping(network, "Containers")
        for container_id in attached:
            shown = mapping(attached, container_id)
            try:
                shown["Name"] = self.containers.resolve(container_id).name
            except NoSuchContainer:
                continue  # on its way out
        return network


def _fits(network: JsonObject, filters: Filters) -> bool:
    tests: dict[str, Callable[[str], bool]] = {
        "driver": lambda value: text(network, "Driver") == value,
        "id": lambda value: text(network, "Id").startswith(value),
        "name": lambda value: value in text(network, "Name"),
        "scope": lambda value: value == "local",
        "type": lambda value: value == "builtin",
        "label": lambda _: False,  # the networks every engine has carry no label
        "dangling": lambda value: value.lower() in {"0", "false"},  # they are never dangling: Docker's rule
    }
    return all(any(tests[name](value) for value in values) for name, values in filters.items())
