"""Which subnet a bridge takes and which address an endpoint gets (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network, NetmaskValueError

from lamina.errors import Conflict, InvalidArgument, Unavailable

CANDIDATES: tuple[IPv4Network, ...] = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *(IPv4Network(f"192.168.{third}.0/20") for third in range(0, 256, 16)),
)
"""The subnets tried for a bridge, in Docker's order (moby libnetwork ipamutils, the local scope's default pools)."""


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Interface:
    """The gateway address, with its subnet, of the first candidate that overlaps none of `taken` (the host's routes).

    Raises:
        Unavailable: every candidate is taken.
    """
    networks = tuple(taken)
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(network) for network in networks):
            return IPv4Interface((candidate[1], candidate.prefixlen))
    raise Unavailable(
        "no free subnet for the default bridge: every candidate overlaps a route of this host",
        hint="choose one with --bip, for example --bip 10.200.0.1/24",
    )


def parse_bip(text: str) -> IPv4Interface:
    """The bridge's own address from `--bip ADDRESS/PREFIX`.

    Raises:
        InvalidArgument: no address with prefix, or one that leaves no room for a container.
    """
    if "/" not in text:
        raise InvalidArgument(f"invalid bip {text!r}: expected ADDRESS/PREFIX", hint="for example --bip 10.200.0.1/24")
    try:
        found = IPv4Interface(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise InvalidArgument(f"invalid bip {text!r}: {error}") from error
    edges = (found.network.network_address, found.network.broadcast_address)
    if found.network.prefixlen > 30 or found.ip in edges:
        raise InvalidArgument(f"invalid bip {text!r}: not a usable host address of a subnet")
    return found


def mac_of(address: IPv4Address) -> str:
    """The hardware address that Docker derives from an IPv4 address: 02:42 and the four bytes."""
    return (b"\x02\x42" + address.packed).hex(":")


class AddressPool:
    """The addresses of one subnet: the lowest free one is given out first.

    The subnet's own address, its broadcast address and the gateway are never given out.
    """

    def __init__(self, gateway: IPv4Interface) -> None:
        self.gateway = gateway
        self.subnet = gateway.network
        self._first = int(self.subnet.network_address) + 1
        self._last = int(self.subnet.broadcast_address) - 1
        self._taken: set[int] = {int(gateway.ip)}
        self._floor = self._first
        """Every address below this one is taken."""

    def allocate(self) -> IPv4Address:
        """Take the lowest free address.

        Raises:
            Unavailable: the subnet is full.
        """
        number = self._floor
        while number in self._taken:
            number += 1
        if number > self._last:
            self._floor = number
            raise Unavailable(f"no available IPv4 addresses on this network's address pool: {self.subnet}")
        self._taken.add(number)
        self._floor = number + 1
        return IPv4Address(number)

    def reserve(self, address: IPv4Address) -> None:
        """Take this very address.

        Raises:
            InvalidArgument: it is not one of this subnet's.
            Conflict: it is taken.
        """
        number = int(address)
        if not self._first <= number <= self._last:
            raise InvalidArgument(f"address {address} is not usable in subnet {self.subnet}")
        if number in self._taken:
            raise Conflict(f"Address already in use: {address}")
        self._taken.add(number)

    def release(self, address: IPv4Address) -> None:
        """Give an address back. A free one, or one of another subnet, is fine."""
        number = int(address)
        if number == int(self.gateway.ip) or not self._first <= number <= self._last:
            return
        self._taken.discard(number)
        self._floor = min(self._floor, number)
