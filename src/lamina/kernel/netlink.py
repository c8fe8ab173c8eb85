"""Links, addresses and routes by rtnetlink (blocking): only the messages that a bridge network needs.

One message, or a batch of them in one system call, each acknowledged. A general netlink library costs 24 MiB of memory
and a fifth of a second of start-up for these eight messages (docs/adr), so they are written out here and checked
against such a library in the tests.

Source: rtnetlink(7), netlink(7); linux/rtnetlink.h, linux/if_link.h, linux/veth.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import TracebackType
from typing import Self

# linux/netlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_EXCL, _CREATE = 0x200, 0x400
_SOL_NETLINK, _EXT_ACK = 270, 11
_CAPPED, _HAS_TLVS = 0x100, 0x200
_ERROR_MESSAGE = 1
# linux/rtnetlink.h
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_TABLE_MAIN, _PROTO_BOOT, _SCOPE_UNIVERSE, _UNICAST = 254, 3, 0, 1
# linux/if_link.h, linux/if_addr.h, linux/veth.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFF_UP = 1
_NESTED = 0x8000

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTR = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. `kind` is empty for what is no virtual device; `master` is the bridge's index, or 0."""

    index: int
    name: str
    kind: str
    master: int
    mac: str
    mtu: int
    is_up: bool


@dataclass(frozen=True, slots=True)
class Request:
    """An encoded message without its length and sequence number; `what` names it in errors."""

    type: int
    flags: int
    body: bytes
    what: str


def add_bridge(name: str, *, mac: str) -> Request:
    info = _attr(_INFO_KIND, b"bridge")
    body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _name(name) + _attr(_IFLA_ADDRESS, _mac(mac))
    return Request(_NEWLINK, _CREATE | _EXCL, body + _attr(_IFLA_LINKINFO | _NESTED, info), f"make bridge {name}")


def add_veth(name: str, *, bridge: int, peer: str, peer_mac: str, peer_netns_fd: int) -> Request:
    """A veth pair in one message: this end up and on the bridge, the other end inside the namespace."""
    inside = _LINK.pack(0, 0, 0, 0, 0) + _name(peer) + _attr(_IFLA_ADDRESS, _mac(peer_mac))
    inside += _attr(_IFLA_NET_NS_FD, struct.pack("=i", peer_netns_fd))
    info = _attr(_INFO_KIND, b"veth") + _attr(_INFO_DATA | _NESTED, _attr(_VETH_PEER | _NESTED, inside))
    body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _name(name) + _attr(_IFLA_MASTER, struct.pack("=I", bridge))
    return Request(_NEWLINK, _CREATE | _EXCL, body + _attr(_IFLA_LINKINFO | _NESTED, info), f"make veth pair {name}")


def set_up(index: int) -> Request:
    return Request(_NEWLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP), f"bring interface {index} up")


def delete_link(name: str) -> Request:
    return Request(_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _name(name), f"delete interface {name}")


def add_address(index: int, address: IPv4Interface) -> Request:
    body = _ADDR.pack(socket.AF_INET, address.network.prefixlen, 0, _SCOPE_UNIVERSE, index)
    body += _attr(_IFA_LOCAL, address.ip.packed) + _attr(_IFA_ADDRESS, address.ip.packed)
    body += _attr(_IFA_BROADCAST, address.network.broadcast_address.packed)
    return Request(_NEWADDR, _CREATE | _EXCL, body, f"add address {address} to interface {index}")


def add_default_route(gateway: IPv4Address) -> Request:
    body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTO_BOOT, _SCOPE_UNIVERSE, _UNICAST, 0)
    body += _attr(_RTA_GATEWAY, gateway.packed)
    return Request(_NEWROUTE, _CREATE | _EXCL, body, f"add default route by {gateway}")


class Netlink:
    """A socket to the network namespace of the thread that opened it; it stays there when the thread moves on.

    Not for two threads at once.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def run(self, *requests: Request) -> None:
        """Carry the requests out in order, in one system call.

        Raises:
            OSError: the first failure; the kernel has tried the later ones too.
        """
        waiting: dict[int, str] = {}
        batch = bytearray()
        for request in requests:
            self._sequence += 1
            waiting[self._sequence] = request.what
            batch += _message(request.type, request.flags | _REQUEST | _ACK, self._sequence, request.body)
        self._socket.sendall(batch)
        failure: OSError | None = None
        while waiting:
            for kind, sequence, flags, body in self._receive():
                what = waiting.pop(sequence, None)
                if what is not None and kind == _NLMSG_ERROR and failure is None:
                    failure = _failure(what, flags, body)
        if failure is not None:
            raise failure

    def links(self) -> list[Link]:
        return [_decode_link(body) for body in self._dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), "list interfaces")]

    def link(self, name: str) -> Link | None:
        """The interface of this name, or None."""
        return next((link for link in self.links() if link.name == name), None)

    def addresses(self) -> list[tuple[int, IPv4Interface]]:
        """(interface index, address) of every IPv4 address."""
        found: list[tuple[int, IPv4Interface]] = []
        for body in self._dump(_GETADDR, _ADDR.pack(socket.AF_INET, 0, 0, 0, 0), "list addresses"):
            _, prefix, _, _, index = _ADDR.unpack_from(body)
            attributes = dict(_attributes(body, _ADDR.size))
            packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if packed is not None:
                found.append((index, IPv4Interface((packed, prefix))))
        return found

    def routes(self) -> list[tuple[IPv4Network, int]]:
        """(destination, interface index) of the main table's IPv4 routes, the default route left out."""
        empty = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        found: list[tuple[IPv4Network, int]] = []
        for body in self._dump(_GETROUTE, empty, "list routes"):
            _, length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(body)
            attributes = dict(_attributes(body, _ROUTE.size))
            if length == 0 or table != _TABLE_MAIN or _RTA_DST not in attributes:
                continue
            (index,) = struct.unpack("=I", attributes.get(_RTA_OIF, bytes(4)))
            found.append((IPv4Network((attributes[_RTA_DST], length), strict=False), index))
        return found

    def _dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        self._sequence += 1
        self._socket.sendall(_message(kind, _REQUEST | _DUMP, self._sequence, body))
        found: list[bytes] = []
        while True:
            for answer, sequence, flags, content in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == _NLMSG_DONE:
                    return found
                if answer == _NLMSG_ERROR:
                    raise _failure(what, flags, content) or OSError(f"{what}: unexpected acknowledgement")
                found.append(content)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(1 << 18)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size:
                return
            yield kind, sequence, flags, data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    message = _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body
    return message + bytes(-len(message) % 4)


def _attr(kind: int, value: bytes) -> bytes:
    return _ATTR.pack(_ATTR.size + len(value), kind) + value + bytes(-len(value) % 4)


def _name(name: str) -> bytes:
    return _attr(_IFLA_IFNAME, os.fsencode(name) + b"\0")


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _attributes(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTR.size <= len(data):
        length, kind = _ATTR.unpack_from(data, at)
        if length < _ATTR.size:
            return
        yield kind & 0x3FFF, data[at + _ATTR.size : at + length]
        at += (length + 3) & ~3


def _failure(what: str, flags: int, body: bytes) -> OSError | None:
    (code,) = struct.unpack_from("=i", body)
    if code == 0:
        return None
    message = os.strerror(-code)
    if flags & _HAS_TLVS:
        echoed = 16 if flags & _CAPPED else (_HEADER.unpack_from(body, 4)[0] + 3) & ~3
        detail = dict(_attributes(body, 4 + echoed)).get(_ERROR_MESSAGE)
        if detail:
            message += f" ({detail.rstrip(bytes(1)).decode(errors='replace')})"
    return OSError(-code, f"{what}: {message}")


def _decode_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = dict(_attributes(body, _LINK.size))
    info = dict(_attributes(attributes.get(_IFLA_LINKINFO, b""), 0))
    return Link(
        index=index,
        name=os.fsdecode(attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0")),
        kind=info.get(_INFO_KIND, b"").rstrip(b"\0").decode(),
        master=struct.unpack("=I", attributes.get(_IFLA_MASTER, bytes(4)))[0],
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=struct.unpack("=I", attributes.get(_IFLA_MTU, bytes(4)))[0],
        is_up=bool(flags & _IFF_UP),
    )
