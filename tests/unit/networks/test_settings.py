"""NetworkSettings in Docker's shape."""

from ipaddress import IPv4Address, IPv4Interface

import pytest

from lamina.jsonvalue import JsonObject
from lamina.networks.settings import Endpoint, network_settings, stored_endpoint, without_addresses

ENDPOINT = Endpoint(
    "bridge",
    "n" * 64,
    "e" * 64,
    address=IPv4Interface("172.17.0.2/16"),
    gateway=IPv4Address("172.17.0.1"),
    mac="02:42:ac:11:00:02",
)


def test_settings_show_the_endpoint_twice_as_docker_does() -> None:
    settings = network_settings(ENDPOINT, sandbox_id="s", sandbox_key="/run/x")
    assert settings["IPAddress"] == "172.17.0.2"
    assert settings["IPPrefixLen"] == 16
    networks = settings["Networks"]
    assert isinstance(networks, dict)
    assert isinstance(networks["bridge"], dict)
    assert networks["bridge"]["MacAddress"] == "02:42:ac:11:00:02"


def test_what_is_stored_comes_back() -> None:
    assert stored_endpoint(network_settings(ENDPOINT), "bridge") == ENDPOINT


def test_an_ended_container_keeps_its_network_without_addresses() -> None:
    left = without_addresses(network_settings(ENDPOINT, sandbox_id="s"))
    assert stored_endpoint(left, "bridge") is None
    assert left["IPAddress"] == ""
    networks = left["Networks"]
    assert isinstance(networks, dict)
    assert isinstance(networks["bridge"], dict)
    assert networks["bridge"]["NetworkID"] == "n" * 64


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"Networks": None},
        {"Networks": {"bridge": 5}},
        {"Networks": {"bridge": {"IPAddress": "x", "IPPrefixLen": 16}}},
        {"Networks": {"bridge": {"IPAddress": "1.2.3.4", "IPPrefixLen": 99}}},
        {"Networks": {"bridge": {"IPAddress": "1.2.3.4", "IPPrefixLen": "16"}}},
        {"Networks": {"bridge": {"IPAddress": "1.2.3.4", "IPPrefixLen": 8, "Gateway": "x"}}},
    ],
)
def test_settings_that_make_no_sense_are_no_endpoint(broken: JsonObject) -> None:
    assert stored_endpoint(broken, "bridge") is None


def test_a_shared_network_has_no_endpoint_of_its_own() -> None:
    assert network_settings(None)["Networks"] == {}
