"""The default bridge: its interface, its address, its packet filter rules (blocking)."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from lamina.errors import Conflict, InvalidArgument, NotFound, Unsupported
from lamina.kernel import netlink
from lamina.kernel.netlink import Link, Netlink
from lamina.kernel.nftables import Nftables
from lamina.networks.ipam import choose_subnet

DEFAULT_NAME = "lamina0"
_MAX_BRIDGES = 64
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")


class BridgeClaim:
    """One daemon's right to a bridge, for as long as the process lives.

    An abstract socket name is the lock, because it belongs to the network namespace as the bridge does and goes with
    the process. Nothing listens on it.
    """

    def __init__(self, name: str) -> None:
        """Raises Conflict when a living daemon has the bridge."""
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(f"\0lamina-bridge-{name}")
        except OSError as error:
            self._socket.close()
            raise Conflict(f"bridge {name} belongs to another running daemon", hint="give --bridge NAME") from error

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Bridge:
    """The interface that containers are plugged into. `is_ours`: we made it, so we may remove it."""

    name: str
    index: int
    gateway: IPv4Interface
    is_ours: bool


def claim_default_bridge(remembered: str, netlink_socket: Netlink) -> BridgeClaim:
    """Choose among lamina0, lamina1, …: the remembered one, else the first that no other daemon uses.

    A bridge with interfaces on it that this data root does not remember belongs to containers of another data root
    whose daemon is away.
    """
    links = netlink_socket.links()
    plugged = {link.master for link in links}
    busy = {link.name for link in links if link.index in plugged}
    names = [name for name in (f"lamina{number}" for number in range(_MAX_BRIDGES)) if name not in busy]
    for name in ([remembered] if remembered else []) + names:
        try:
            return BridgeClaim(name)
        except Conflict:
            continue
    raise Conflict(f"all bridges lamina0 to lamina{_MAX_BRIDGES - 1} are in use", hint="give --bridge NAME")


def ensure_bridge(name: str, bip: IPv4Interface | None, netlink_socket: Netlink) -> Bridge:
    """Make the bridge if it is not there, give it an address if it has none, and bring it up.

    Raises:
        InvalidArgument: the bridge has another address than `bip`, and containers on it.
        Unsupported: an interface of this name is not a bridge, or the kernel makes none.
    """
    link = netlink_socket.link(name)
    if link is None:
        link = _make(name, netlink_socket)
    gateway = _existing_address(link, netlink_socket)
    if gateway is not None and bip is not None and gateway != bip:
        if any(other.master == link.index for other in netlink_socket.links()):
            raise InvalidArgument(
                f"bridge {name} has the address {gateway}, not {bip}, and containers on it", hint="stop them first"
            )
        netlink_socket.run(netlink.delete_link(name))
        link, gateway = _make(name, netlink_socket), None
    if gateway is None:
        gateway = bip or choose_subnet([network for network, _ in netlink_socket.routes()])
        netlink_socket.run(netlink.add_address(link.index, gateway))
    netlink_socket.run(netlink.set_up(link.index))
    return Bridge(name, link.index, gateway, is_ours=True)


def existing_bridge(name: str, netlink_socket: Netlink) -> Bridge:
    """The bridge that somebody else set up.

    Raises:
        NotFound: no such interface.
        InvalidArgument: it is no bridge, or it has no IPv4 address.
    """
    link = netlink_socket.link(name)
    if link is None:
        raise NotFound(f"bridge {name} does not exist", hint=f"ip link add {name} type bridge")
    gateway = _existing_address(link, netlink_socket)
    if gateway is None:
        raise InvalidArgument(f"bridge {name} has no IPv4 address", hint=f"ip address add 10.200.0.1/24 dev {name}")
    netlink_socket.run(netlink.set_up(link.index))
    return Bridge(name, link.index, gateway, is_ours=False)


def remove_bridge(bridge: Bridge, netlink_socket: Netlink, nftables: Nftables) -> None:
    """Take our rules away, and the interface too if it is ours."""
    table = _table(bridge.name)
    nftables.run(f"table ip {table}\ndelete table ip {table}\n")
    if bridge.is_ours and netlink_socket.link(bridge.name) is not None:
        netlink_socket.run(netlink.delete_link(bridge.name))


def apply_rules(bridge: Bridge, nftables: Nftables) -> None:
    """Let containers out, masqueraded; let answers in; keep everything else from reaching them. One transaction."""
    nftables.run(rules(bridge))


def rules(bridge: Bridge) -> str:
    """The bridge's table; whatever an earlier daemon left in it is replaced."""
    table, name, subnet = _table(bridge.name), bridge.name, bridge.gateway.network
    return f"""table ip {table}
delete table ip {table}
table ip {table} {{
    chain postrouting {{
        type nat hook postrouting priority 100; policy accept;
        ip saddr {subnet} oifname != "{name}" masquerade
    }}
    chain forward {{
        type filter hook forward priority 0; policy accept;
        iifname "{name}" accept
        oifname "{name}" ct state established,related accept
        oifname "{name}" drop
    }}
}}
"""


def enable_forwarding() -> None:
    """Let this host forward IPv4 packets, as Docker does; already on is left alone."""
    if _FORWARDING.read_text(encoding="ascii").strip() == "1":
        return
    try:
        _FORWARDING.write_text("1\n", encoding="ascii")
    except OSError as error:
        raise Unsupported(
            f"cannot switch on {_FORWARDING}: {error.strerror}", hint="sysctl -w net.ipv4.ip_forward=1"
        ) from error


def check_name(name: str) -> str:
    """Refuse what is no interface name: it goes into packet filter rules."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"invalid bridge name {name!r}", hint="at most 15 letters, digits, '_', '.', '-'")
    return name


def ports(bridge: Bridge, links: Collection[Link]) -> list[Link]:
    """The interfaces plugged into the bridge."""
    return [link for link in links if link.master == bridge.index]


def _table(name: str) -> str:
    # A table name is an identifier of the rule language, which knows fewer characters than an interface name.
    return "lamina_" + re.sub(r"[^A-Za-z0-9]", "_", name)


def _make(name: str, netlink_socket: Netlink) -> Link:
    # A bridge without a fixed hardware address takes the lowest of its ports' and would change with each container.
    mac = (b"\x02\x42" + os.urandom(4)).hex(":")
    try:
        netlink_socket.run(netlink.add_bridge(name, mac=mac))
    except OSError as error:
        raise Unsupported(
            f"cannot make the bridge {name}: {error.strerror}", hint="start with --bridge none, or as root"
        ) from error
    link = netlink_socket.link(name)
    if link is None:
        raise Unsupported(f"the bridge {name} vanished as it was made")
    return link


def _existing_address(link: Link, netlink_socket: Netlink) -> IPv4Interface | None:
    if link.kind != "bridge":
        raise InvalidArgument(f"interface {link.name} is not a bridge", hint="give --bridge another name")
    return next((address for index, address in netlink_socket.addresses() if index == link.index), None)
