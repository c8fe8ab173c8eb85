"""A container's network namespace and the cable into it (blocking).

All of it takes about a millisecond: one thread, one namespace, one message that makes both ends of the cable (one on
the bridge, one inside), one batch that sets up the inside. That is why no sandbox is prepared ahead of its use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from lamina.ids import ContainerId
from lamina.kernel import netlink
from lamina.kernel.namespaces import hold_new_network_namespace, release_namespace
from lamina.kernel.netlink import Netlink

_INSIDE, _LOOPBACK_INDEX = "eth0", 1
_OUTER_NAME = re.compile(r"veth[0-9a-f]{10}")


class Sandboxes:
    """The network namespaces of our containers, each kept by a file named after its container."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, container_id: ContainerId) -> Path:
        return self._directory / container_id

    def create(
        self, container_id: ContainerId, bridge_index: int, *, address: IPv4Interface, gateway: IPv4Address, mac: str
    ) -> Path:
        """Make the namespace with `eth0` in it, plugged into the bridge. On error nothing is left.

        The other end's name is random, because the one of an earlier start may still be on its way out.
        """
        self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        path = self.path(container_id)
        with Netlink() as outside:

            def configure(namespace_fd: int) -> None:
                _prepare_defaults()
                cable = netlink.add_veth(
                    _outer_name(),
                    bridge=bridge_index,
                    peer=_INSIDE,
                    peer_mac=mac,
                    peer_netns_fd=namespace_fd,
                )
                outside.run(cable)
                with Netlink() as inside:
                    # Not always the second interface: a loaded tunnel module puts one into every new namespace.
                    end = next(link.index for link in inside.links() if link.name == _INSIDE)
                    inside.run(
                        netlink.set_up(_LOOPBACK_INDEX),
                        netlink.add_address(end, address),
                        netlink.set_up(end),
                        netlink.add_default_route(gateway),
                    )

            hold_new_network_namespace(path, configure)
        return path

    def remove(self, container_id: ContainerId) -> None:
        """Let the namespace go; its interfaces go with it as soon as its last process has ended. Again is fine."""
        release_namespace(self.path(container_id))

    def remove_unknown(self, live: Collection[str]) -> list[str]:
        """Remove the sandboxes of containers that are not in `live`: what a crash left. Returns their names."""
        if not self._directory.exists():
            return []
        left = sorted(name for name in os.listdir(self._directory) if name not in live)
        for name in left:
            release_namespace(self._directory / name)
        return left


def is_outer_name(name: str) -> bool:
    """Is this how we name the bridge's end of a cable?"""
    return _OUTER_NAME.fullmatch(name) is not None


def _outer_name() -> str:
    return f"veth{os.urandom(5).hex()}"


def _prepare_defaults() -> None:
    """Set what interfaces of this thread's namespace start with.

    No IPv6 on the bridge network, as Docker has it. An announcement when the address comes up, because the address
    may have been another container's a moment ago and neighbours may still remember that one.
    """
    for path, value in (
        ("/proc/sys/net/ipv6/conf/default/disable_ipv6", b"1"),
        ("/proc/sys/net/ipv4/conf/default/arp_notify", b"1"),
    ):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # a kernel without IPv6
            continue
        try:
            os.write(fd, value)
        finally:
            os.close(fd)
