"""Which subnet a bridge takes and which address an endpoint gets."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import Conflict, InvalidArgument, Unavailable
from lamina.networks.ipam import CANDIDATES, AddressPool, choose_subnet, mac_of, parse_bip


def test_the_first_candidate_without_overlap_is_chosen() -> None:
    assert str(choose_subnet([])) == "172.17.0.1/16"
    taken = [IPv4Network("172.17.3.0/24"), IPv4Network("172.18.0.0/15")]
    assert str(choose_subnet(taken)) == "172.20.0.1/16"


def test_a_route_wider_than_all_of_172_leaves_192_168() -> None:
    assert str(choose_subnet([IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/24")])) == "192.168.16.1/20"


def test_no_free_candidate_names_the_option_to_use() -> None:
    with pytest.raises(Unavailable) as caught:
        choose_subnet(CANDIDATES)
    assert "--bip" in caught.value.hint


@pytest.mark.parametrize("text", ["", "10.0.0.1", "10.0.0.1/33", "10.0.0.0/24", "10.0.0.255/24", "10.0.0.1/31", "x/8"])
def test_a_bad_bip_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_bip(text)


def test_a_bip_gives_gateway_and_subnet() -> None:
    assert parse_bip("10.1.0.5/24") == IPv4Interface("10.1.0.5/24")


def test_the_lowest_free_address_comes_first_and_a_released_one_again() -> None:
    pool = AddressPool(IPv4Interface("172.17.0.1/16"))
    assert [str(pool.allocate()) for _ in range(3)] == ["172.17.0.2", "172.17.0.3", "172.17.0.4"]
    pool.release(IPv4Address("172.17.0.3"))
    assert str(pool.allocate()) == "172.17.0.3"
    assert str(pool.allocate()) == "172.17.0.5"


def test_a_full_subnet_says_so_and_serves_again_after_a_release() -> None:
    pool = AddressPool(IPv4Interface("10.0.0.1/29"))
    for _ in range(5):
        pool.allocate()
    for _ in range(2):
        with pytest.raises(Unavailable, match="no available IPv4 addresses"):
            pool.allocate()
    pool.release(IPv4Address("10.0.0.4"))
    assert str(pool.allocate()) == "10.0.0.4"


def test_the_gateway_cannot_be_taken_nor_released() -> None:
    pool = AddressPool(IPv4Interface("10.0.0.1/29"))
    with pytest.raises(Conflict):
        pool.reserve(IPv4Address("10.0.0.1"))
    pool.release(IPv4Address("10.0.0.1"))
    assert str(pool.allocate()) == "10.0.0.2"


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.7", "10.0.1.2"])
def test_an_address_outside_the_subnet_cannot_be_reserved(address: str) -> None:
    with pytest.raises(InvalidArgument):
        AddressPool(IPv4Interface("10.0.0.1/29")).reserve(IPv4Address(address))


@given(st.lists(st.one_of(st.just(-1), st.integers(0, 15)), max_size=60))
def test_no_address_is_ever_given_twice(steps: list[int]) -> None:
    pool = AddressPool(IPv4Interface("10.0.0.1/28"))
    held: set[IPv4Address] = set()
    for step in steps:
        if step >= 0:
            address = IPv4Address("10.0.0.0") + step
            held.discard(address)
            pool.release(address)
            continue
        if len(held) == 13:
            with pytest.raises(Unavailable):
                pool.allocate()
            continue
        given_out = pool.allocate()
        assert given_out not in held
        assert given_out != IPv4Address("10.0.0.1")
        held.add(given_out)


def test_hardware_addresses_are_derived_as_docker_does() -> None:
    assert mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
