"""The three networks every engine has, and containers joining and leaving them (blocking, thread-safe).

User-defined networks are not served yet.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from lamina.clock import Clock, SystemClock, rfc3339
from lamina.errors import Conflict, InvalidArgument, NoSuchNetwork, NotServed
from lamina.ids import ContainerId, random_id
from lamina.jsonvalue import JsonObject
from lamina.kernel.netlink import Netlink
from lamina.kernel.nftables import Nftables
from lamina.networks.bridge import (
    Bridge,
    BridgeClaim,
    apply_rules,
    check_name,
    claim_default_bridge,
    enable_forwarding,
    ensure_bridge,
    existing_bridge,
    ports,
    remove_bridge,
)
from lamina.networks.ipam import AddressPool, mac_of, parse_bip
from lamina.networks.record import NETWORKS, load_record, save_record
from lamina.networks.sandbox import Sandboxes, is_outer_name
from lamina.networks.settings import Endpoint, network_body, network_settings, stored_endpoint

NO_BRIDGE = "none"


@dataclass(frozen=True, slots=True)
class Joined:
    """`netns` is the namespace to enter; None means the runtime makes one (`none`) or shares one."""

    netns: Path | None
    settings: JsonObject


class Networks:
    """The networks `bridge`, `host` and `none`."""

    def __init__(
        self, directory: Path, exec_root: Path, *, bridge: str | None = None, bip: str | None = None,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        """`bridge`: None for our own, "none" for no bridge network, else the name of an existing interface.

        Raises:
            InvalidArgument: a name that is no interface name, or a bip that is no address.
        """
        if bip and bridge:
            raise InvalidArgument("--bridge and --bip cannot be given together", hint="give the bridge its address")
        self._directory = directory
        self._wanted = check_name(bridge) if bridge else None
        self._bip: IPv4Interface | None = parse_bip(bip) if bip else None
        self._clock = clock or SystemClock()
        self._sandboxes = Sandboxes(exec_root / "netns")
        self._nftables = Nftables()
        self._lock = threading.Lock()
        self._endpoints: dict[ContainerId, Endpoint] = {}
        self._bridge: Bridge | None = None
        self._claim: BridgeClaim | None = None
        self._pool: AddressPool | None = None
        self._record = load_record(directory, rfc3339(self._clock.now_ns()))

    def start(self, live: Mapping[ContainerId, JsonObject]) -> list[str]:
        """Make the bridge ready, take the addresses of `live` containers again, remove the sandboxes of all others.

        `live` holds each running container's settings. Returns warnings.

        Raises:
            Unsupported: this host lacks what a bridge needs.
            Conflict: another daemon has the bridge.
        """
        self._sandboxes.remove_unknown(live.keys())
        if self._wanted == NO_BRIDGE:
            return []
        with Netlink() as netlink:
            self._bridge = self._open_bridge(netlink)
        apply_rules(self._bridge, self._nftables)
        enable_forwarding()
        self._pool = AddressPool(self._bridge.gateway)
        return [warning for warning in (self._adopt(*one) for one in live.items()) if warning]

    @property
    def default_mode(self) -> str:
        """What the network mode `default` means: `bridge`, or `none` when there is no bridge network."""
        return "none" if self._wanted == NO_BRIDGE else "bridge"

    @property
    def gateway(self) -> IPv4Address | None:
        """The bridge's address, which `host-gateway` stands for; None without a bridge network."""
        return self._bridge.gateway.ip if self._bridge else None

    @property
    def bridge_name(self) -> str:
        """The bridge's interface; empty without a bridge network."""
        return self._bridge.name if self._bridge else ""

    def resolve_mode(self, mode: str) -> str:
        """`bridge`, `host`, `none` or `container:ID` for what a container asks for.

        Raises:
            InvalidArgument: the bridge network was switched off.
            NotServed: a user-defined network.
        """
        if mode in {"", "default"}:
            return self.default_mode
        if mode == "bridge" and self.default_mode != "bridge":
            raise InvalidArgument(
                "the bridge network is switched off (--bridge none)", hint="use --network none or --network host"
            )
        if mode in NETWORKS or mode.startswith("container:"):
            return mode
        raise NotServed(f"user-defined networks are not served yet: network {mode}", hint="use --network bridge")

    def join(self, container_id: ContainerId, mode: str, *, hostname: str = "", mac: str | None = None) -> Joined:
        """Give a container that starts its place on a network; whatever an earlier start left is removed first.

        Raises:
            InvalidArgument, NotServed: as `resolve_mode`.
            Unavailable: the subnet is full.
            OSError: the kernel refuses; nothing is left.
        """
        mode = self.resolve_mode(mode)
        if mode.startswith("container:"):
            return Joined(None, network_settings(None))
        if mode in {"host", "none"}:
            endpoint = Endpoint(mode, self._record.ids[mode], random_id())
            with self._lock:
                self._endpoints[container_id] = endpoint
            return Joined(None, network_settings(endpoint, sandbox_id=random_id()))
        return self._join_bridge(container_id, mac)

    def leave(self, container_id: ContainerId) -> None:
        """Take back everything `join` gave. Again is fine.

        The kernel removes the interfaces when the container's last process has gone.
        """
        self._sandboxes.remove(container_id)
        with self._lock:
            endpoint = self._endpoints.pop(container_id, None)
            if endpoint is not None and endpoint.address is not None and self._pool is not None:
                self._pool.release(endpoint.address.ip)

    def list(self) -> list[JsonObject]:
        """The networks as the API lists them: without their containers."""
        return [{**self.inspect(name), "Containers": {}} for name in NETWORKS if self._is_there(name)]

    def inspect(self, name_or_id: str) -> JsonObject:
        """One network, with its containers by id; their names are left empty.

        Raises:
            NoSuchNetwork: neither a name, an id nor a prefix of one id.
        """
        name = self._find(name_or_id)
        with self._lock:
            endpoints = {str(one): endpoint for one, endpoint in self._endpoints.items() if endpoint.network == name}
        bridge = self._bridge if name == "bridge" else None
        return network_body(
            name,
            self._record.ids[name],
            self._record.created,
            gateway=bridge.gateway if bridge else None,
            options=_options(bridge),
            endpoints=endpoints,
        )

    def close(self) -> None:
        """Give the bridge up; without containers on it, our own bridge and all rules go. Twice is fine."""
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            with Netlink() as netlink:
                # Ends of cables of our own may still be on it: the kernel takes its time when a container goes.
                others = [port for port in ports(bridge, netlink.links()) if not is_outer_name(port.name)]
                if not others and not self._endpoints_on_bridge():
                    remove_bridge(bridge, netlink, self._nftables)
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _open_bridge(self, netlink: Netlink) -> Bridge:
        if self._wanted is not None:
            self._claim = BridgeClaim(self._wanted)
            return existing_bridge(self._wanted, netlink)
        self._claim = claim_default_bridge(self._record.bridge, netlink)
        if self._claim.name != self._record.bridge:
            self._record = replace(self._record, bridge=self._claim.name)
            save_record(self._directory, self._record)
        return ensure_bridge(self._claim.name, self._bip, netlink)

    def _adopt(self, container_id: ContainerId, settings: JsonObject) -> str:
        for name in ("host", "none"):
            networks = settings.get("Networks")
            if isinstance(networks, dict) and name in networks:
                self._endpoints[container_id] = Endpoint(name, self._record.ids[name], random_id())
        endpoint = stored_endpoint(settings, "bridge")
        if endpoint is None or endpoint.address is None or self._pool is None:
            return ""
        try:
            self._pool.reserve(endpoint.address.ip)
        except (Conflict, InvalidArgument) as error:
            return f"container {container_id[:12]} keeps an address that does not fit: {error}"
        self._endpoints[container_id] = endpoint
        return ""

    def _join_bridge(self, container_id: ContainerId, mac: str | None) -> Joined:
        bridge, pool = self._bridge, self._pool
        if bridge is None or pool is None:
            raise InvalidArgument("the bridge network is not running")
        self.leave(container_id)
        with self._lock:
            ip = pool.allocate()
        address = IPv4Interface((ip, bridge.gateway.network.prefixlen))
        mac = mac or mac_of(ip)
        try:
            path = self._sandboxes.create(
                container_id, bridge.index, address=address, gateway=bridge.gateway.ip, mac=mac
            )
        except BaseException:
            with self._lock:
                pool.release(ip)
            raise
        endpoint = Endpoint(
            "bridge", self._record.ids["bridge"], random_id(), address=address, gateway=bridge.gateway.ip, mac=mac
        )
        with self._lock:
            self._endpoints[container_id] = endpoint
        return Joined(path, network_settings(endpoint, sandbox_id=random_id(), sandbox_key=str(path)))

    def _endpoints_on_bridge(self) -> bool:
        with self._lock:
            return any(endpoint.network == "bridge" for endpoint in self._endpoints.values())

    def _is_there(self, name: str) -> bool:
        return name != "bridge" or self.default_mode == "bridge"

    def _find(self, name_or_id: str) -> str:
        names = [name for name in NETWORKS if self._is_there(name)]
        if name_or_id in names:
            return name_or_id
        found = [name for name in names if name_or_id and self._record.ids[name].startswith(name_or_id)]
        if len(found) != 1:
            raise NoSuchNetwork(f"network {name_or_id} not found")
        return found[0]


def _options(bridge: Bridge | None) -> dict[str, str]:
    if bridge is None:
        return {}
    prefix = "com.docker.network.bridge"
    return {
        f"{prefix}.default_bridge": "true",
        f"{prefix}.enable_icc": "true",
        f"{prefix}.enable_ip_masquerade": "true",
        f"{prefix}.host_binding_ipv4": "0.0.0.0",  # noqa: S104 - what Docker shows; nothing is bound
        f"{prefix}.name": bridge.name,
        "com.docker.network.driver.mtu": "1500",
    }
