"""Networks as verbs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.engine.networks import InspectNetwork, ListNetworks
from lamina.errors import InvalidArgument, NoSuchNetwork
from lamina.jsonvalue import mapping, text
from lamina.networks.networks import Networks
from tests.unit.engine.stores import Stores


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Networks]:
    """Without a bridge, so that nothing of this machine is touched."""
    found = Networks(tmp_path / "network", tmp_path / "run", bridge="none")
    found.start({})
    yield found
    found.close()


@pytest.mark.root
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["host", "none"]),
        ({"name": ("os",)}, ["host"]),
        ({"driver": ("null",)}, ["none"]),
        ({"driver": ("null", "host")}, ["host", "none"]),
        ({"type": ("custom",)}, []),
        ({"type": ("builtin",), "scope": ("local",)}, ["host", "none"]),
        ({"label": ("x",)}, []),
        ({"dangling": ("true",)}, []),
    ],
)
def test_filters_choose(stores: Stores, networks: Networks, filters, expected: list[str]) -> None:
    found = asyncio.run(ListNetworks(networks, stores.workers)(filters))
    assert [network["Name"] for network in found] == expected
    one = text(found[0], "Id")[:10] if found else "none"
    assert asyncio.run(ListNetworks(networks, stores.workers)({**filters, "id": (one,)})) == found[:1]


@pytest.mark.root
def test_an_unknown_filter_or_network_is_refused(stores: Stores, networks: Networks) -> None:
    with pytest.raises(InvalidArgument):
        asyncio.run(ListNetworks(networks, stores.workers)({"colour": ("red",)}))
    with pytest.raises(NoSuchNetwork):
        asyncio.run(InspectNetwork(networks, stores.containers, stores.workers)("blue"))


@pytest.mark.root
def test_a_network_shows_its_containers_by_name(stores: Stores, networks: Networks) -> None:
    box = stores.container()
    networks.join(box.id, "host")
    found = asyncio.run(InspectNetwork(networks, stores.containers, stores.workers)("host"))
    assert text(mapping(mapping(found, "Containers"), box.id), "Name") == "box"
