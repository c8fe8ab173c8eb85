"""rtnetlink messages, checked against another library's view of the same namespace."""

import errno
import os
import warnings
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from lamina.kernel import libc, netlink
from lamina.kernel.netlink import Netlink

pytestmark = pytest.mark.root


@pytest.fixture
def opened() -> Iterator[Netlink]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc.unshare(libc.CLONE_NEWNET)
    try:
        with Netlink() as found:
            yield found
    finally:
        libc.setns(before, libc.CLONE_NEWNET)
        os.close(before)


def test_another_library_sees_what_we_made(opened: Netlink) -> None:
    opened.run(netlink.add_bridge("br", mac="02:42:00:00:00:01"))
    bridge = opened.link("br")
    assert bridge is not None
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    pair = netlink.add_veth("outer", bridge=bridge.index, peer="inner", peer_mac="02:42:00:00:00:02", peer_netns_fd=fd)
    opened.run(pair)
    inner = opened.link("inner")
    assert inner is not None
    opened.run(
        netlink.set_up(inner.index),
        netlink.add_address(inner.index, IPv4Interface("10.5.0.2/24")),
        netlink.add_default_route(IPv4Address("10.5.0.1")),
    )
    os.close(fd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyroute2 import IPRoute

        with IPRoute() as other:
            links = {link.get("ifname"): link for link in other.get_links()}
            addresses = [address.get("address") for address in other.get_addr(index=inner.index)]
            default = [route.get("gateway") for route in other.get_default_routes(family=2)]
    assert links["outer"].get("master") == bridge.index
    assert links["inner"]["index"] == inner.index
    assert links["inner"].get("address") == "02:42:00:00:00:02"
    assert links["inner"]["state"] == links["outer"]["state"] == "up"
    assert addresses[0] == "10.5.0.2"
    assert default == ["10.5.0.1"]
    assert (inner.index, IPv4Interface("10.5.0.2/24")) in opened.addresses()
    assert (IPv4Network("10.5.0.0/24"), inner.index) in opened.routes()


def test_a_failure_names_what_was_tried_and_the_kernels_reason(opened: Netlink) -> None:
    with pytest.raises(OSError, match="delete interface nope") as caught:
        opened.run(netlink.delete_link("nope"))
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(OSError, match="Device not found"):
        opened.run(netlink.add_address(999, IPv4Interface("10.5.0.2/24")))


def test_the_first_failure_of_a_batch_is_told_and_the_rest_was_tried(opened: Netlink) -> None:
    with pytest.raises(OSError, match="nope"):
        opened.run(netlink.delete_link("nope"), netlink.add_bridge("br", mac="02:42:00:00:00:01"))
    assert opened.link("br") is not None


def test_the_socket_stays_in_the_namespace_it_was_opened_in(opened: Netlink) -> None:
    opened.run(netlink.add_bridge("here", mac="02:42:00:00:00:01"))
    libc.unshare(libc.CLONE_NEWNET)
    with Netlink() as other:
        assert other.link("here") is None
    assert opened.link("here") is not None
