"""Joining and leaving the three networks, in the kernel of this machine."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from lamina.errors import Conflict, InvalidArgument, NoSuchNetwork, NotFound, NotServed
from lamina.ids import ContainerId, new_container_id
from lamina.jsonvalue import JsonObject, mapping, text
from lamina.kernel import netlink
from lamina.kernel.mounts import mount_table
from lamina.kernel.namespaces import hold_new_network_namespace, in_network_namespace, release_namespace
from lamina.kernel.netlink import Netlink
from lamina.kernel.nftables import Nftables
from lamina.networks.networks import Networks
from lamina.networks.settings import network_settings

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Networks]:
    found = Networks(tmp_path / "files", tmp_path / "run")
    found.start({})
    yield found
    for container_id in list(found._endpoints):
        found.leave(container_id)
    wait_until(lambda: not any(name.startswith("veth") for name in link_names()))
    found.close()


def link_names() -> list[str]:
    with Netlink() as opened:
        return [link.name for link in opened.links()]


def wait_until(holds) -> None:
    """The kernel takes interfaces away in its own time; there is nothing to wait on but the result."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "did not come true within 10 s"
        time.sleep(0.005)


def address_of(settings: JsonObject) -> str:
    return text(settings, "IPAddress")


def inside(netns: Path | None, work):
    assert netns is not None
    fd = os.open(netns, os.O_RDONLY)
    try:
        return in_network_namespace(fd, work)
    finally:
        os.close(fd)


def listen(address: str = "") -> socket.socket:
    server = socket.create_server((address, 7777))
    server.settimeout(5)
    return server


def connect(address: str, *, timeout_s: float = 5) -> str:
    """Connect, and tell the address the other side sees."""
    with socket.create_connection((address, 7777), timeout=timeout_s) as client:
        client.settimeout(timeout_s)
        return client.recv(100).decode()


def serve_one(server: socket.socket) -> threading.Thread:
    def run() -> None:
        client, peer = server.accept()
        with client:
            client.sendall(peer[0].encode())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_two_containers_reach_each_other_and_the_host_reaches_them(networks: Networks) -> None:
    one = networks.join(new_container_id(), "bridge", hostname="one")
    two = networks.join(new_container_id(), "default", hostname="two")
    assert (address_of(one.settings), address_of(two.settings)) == ("172.17.0.2", "172.17.0.3")
    with inside(two.netns, listen) as server:
        serve_one(server)
        assert inside(one.netns, lambda: connect("172.17.0.3")) == "172.17.0.2"
        serve_one(server)
        assert connect("172.17.0.3") == "172.17.0.1"
    with listen("172.17.0.1") as server:
        serve_one(server)
        assert inside(one.netns, lambda: connect("172.17.0.1")) == "172.17.0.2"
    assert inside(one.netns, lambda: socket.gethostbyname("127.0.0.1")) == "127.0.0.1"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Another machine, at 203.0.113.2, with a route back to the containers' subnet through us at 203.0.113.1."""
    path = tmp_path / "outside"
    with Netlink() as here:

        def configure(fd: int) -> None:
            here.run(netlink.add_bridge("wan", mac="02:42:00:00:00:01"))
            wan = here.link("wan")
            assert wan is not None
            here.run(netlink.add_address(wan.index, IPv4Interface("203.0.113.1/24")))
            here.run(
                netlink.add_veth("cable", bridge=wan.index, peer="eth0", peer_mac="02:42:00:00:00:02", peer_netns_fd=fd)
            )
            with Netlink() as there:
                there.run(netlink.add_address(2, IPv4Interface("203.0.113.2/24")), netlink.set_up(2))
                there.run(netlink.add_default_route(IPv4Address("203.0.113.1")))

        hold_new_network_namespace(path, configure)
        yield path
        release_namespace(path)


def test_a_container_goes_out_masqueraded_and_nobody_comes_in(outside: Path, tmp_path: Path) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    networks = Networks(tmp_path / "files", tmp_path / "run")
    networks.start({})
    container_id = new_container_id()
    joined = networks.join(container_id, "bridge")
    with inside(outside, listen) as server:
        serve_one(server)
        assert inside(joined.netns, lambda: connect("203.0.113.2")) == "203.0.113.1"
    with inside(joined.netns, listen), pytest.raises(TimeoutError):
        inside(outside, lambda: connect("172.17.0.2", timeout_s=0.3))
    networks.leave(container_id)
    networks.close()


def test_leaving_removes_every_trace_and_again_is_fine(networks: Networks, tmp_path: Path) -> None:
    before = link_names()
    container_id = new_container_id()
    joined = networks.join(container_id, "bridge")
    assert len(link_names()) == len(before) + 1
    networks.leave(container_id)
    networks.leave(container_id)
    assert joined.netns is not None
    assert not joined.netns.exists()
    assert not [entry for entry in mount_table() if entry.target.startswith(str(tmp_path))]
    wait_until(lambda: link_names() == before)
    assert mapping(networks.inspect("bridge"), "Containers") == {}
    assert address_of(networks.join(container_id, "bridge").settings) == "172.17.0.2"


def test_joining_again_replaces_what_an_earlier_start_left(networks: Networks) -> None:
    container_id = new_container_id()
    for _ in range(3):
        assert address_of(networks.join(container_id, "bridge").settings) == "172.17.0.2"
        wait_until(lambda: sum(name.startswith("veth") for name in link_names()) == 1)


def test_the_callers_thread_stays_in_its_namespace(networks: Networks) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    joined = networks.join(new_container_id(), "bridge")
    assert os.readlink("/proc/thread-self/ns/net") == before
    assert inside(joined.netns, lambda: os.readlink("/proc/thread-self/ns/net")) != before


def test_many_join_at_once_each_with_its_own_address(networks: Networks) -> None:
    ids = [new_container_id() for _ in range(20)]
    found: dict[ContainerId, str] = {}

    def join(container_id: ContainerId) -> None:
        found[container_id] = address_of(networks.join(container_id, "bridge").settings)

    threads = [threading.Thread(target=join, args=(container_id,)) for container_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found.values())) == 20
    assert len(mapping(networks.inspect("bridge"), "Containers")) == 20


def test_a_chosen_hardware_address_is_used(networks: Networks) -> None:
    joined = networks.join(new_container_id(), "bridge", mac="02:00:00:00:00:77")

    def links() -> list[str]:
        with Netlink() as opened:
            return [link.mac for link in opened.links() if link.name == "eth0"]

    assert inside(joined.netns, links) == ["02:00:00:00:00:77"]
    assert text(joined.settings, "MacAddress") == "02:00:00:00:00:77"


def test_a_failed_join_gives_its_address_back_and_leaves_nothing(networks: Networks) -> None:
    with Netlink() as opened:
        opened.run(netlink.delete_link(networks.bridge_name))
    container_id = new_container_id()
    with pytest.raises(OSError, match="make veth pair"):
        networks.join(container_id, "bridge")
    assert not networks._sandboxes.path(container_id).exists()
    assert link_names() == ["lo"]
    assert networks._pool.allocate() == IPv4Address("172.17.0.2")


def test_a_restarted_daemon_keeps_ids_and_addresses_and_removes_unknown_sandboxes(tmp_path: Path) -> None:
    first = Networks(tmp_path / "files", tmp_path / "run")
    first.start({})
    kept, lost = new_container_id(), new_container_id()
    settings = first.join(kept, "bridge").settings
    first.join(lost, "bridge")
    first._claim.close()  # what the kernel does when the daemon is killed
    second = Networks(tmp_path / "files", tmp_path / "run")
    assert second.start({kept: settings}) == []
    assert second.bridge_name == first.bridge_name
    assert [network["Id"] for network in second.list()] == [network["Id"] for network in first.list()]
    assert os.listdir(tmp_path / "run" / "netns") == [kept]
    assert address_of(second.join(new_container_id(), "bridge").settings) == "172.17.0.3"
    assert text(mapping(mapping(second.inspect("bridge"), "Containers"), kept), "IPv4Address") == "172.17.0.2/16"
    second._claim.close()
    third = Networks(tmp_path / "files", tmp_path / "run")
    third.start({})
    wait_until(lambda: not any(name.startswith("veth") for name in link_names()))
    third.close()
    assert link_names() == ["lo"]


def test_an_address_outside_the_subnet_is_a_warning(tmp_path: Path, networks: Networks) -> None:
    settings = networks.join(new_container_id(), "bridge").settings
    networks._claim.close()
    other = Networks(tmp_path / "other", tmp_path / "run2", bip="10.99.0.1/24")
    warnings = other.start({new_container_id(): settings})
    assert "does not fit" in warnings[0]
    assert other.bridge_name == "lamina1"  # lamina0 has a container of another data root on it
    assert address_of(other.join(ContainerId("c" * 64), "bridge").settings) == "10.99.0.2"
    other.leave(ContainerId("c" * 64))
    other.close()


def test_a_new_bip_takes_effect_when_no_container_is_on_the_bridge(tmp_path: Path) -> None:
    first = Networks(tmp_path / "files", tmp_path / "run")
    first.start({})
    container_id = new_container_id()
    first.join(container_id, "bridge")
    first._claim.close()
    second = Networks(tmp_path / "files", tmp_path / "run", bip="10.98.0.1/24")
    settings = network_settings(None)
    with pytest.raises(InvalidArgument, match="containers on it"):
        second.start({container_id: settings})
    second.close()
    first.leave(container_id)
    wait_until(lambda: not any(name.startswith("veth") for name in link_names()))
    third = Networks(tmp_path / "files", tmp_path / "run", bip="10.98.0.1/24")
    third.start({})
    assert (third.bridge_name, str(third.gateway)) == ("lamina0", "10.98.0.1")
    third.close()


def test_closing_without_containers_removes_bridge_and_rules(tmp_path: Path) -> None:
    networks = Networks(tmp_path / "files", tmp_path / "run")
    networks.start({})
    networks.close()
    networks.close()
    assert link_names() == ["lo"]
    Nftables().run("table ip lamina_lamina0 { }; delete table ip lamina_lamina0")


def test_closing_right_after_the_last_container_left_removes_the_bridge(tmp_path: Path) -> None:
    for _ in range(5):
        networks = Networks(tmp_path / "files", tmp_path / "run")
        networks.start({})
        container_id = new_container_id()
        networks.join(container_id, "bridge")
        networks.leave(container_id)
        networks.close()
        assert "lamina0" not in link_names()


def test_closing_with_something_foreign_on_the_bridge_keeps_it(networks: Networks) -> None:
    with Netlink() as opened:
        bridge = opened.link("lamina0")
        assert bridge is not None
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        opened.run(
            netlink.add_veth("mine", bridge=bridge.index, peer="other", peer_mac="02:42:00:00:00:09", peer_netns_fd=fd)
        )
        os.close(fd)
    networks.close()
    assert "lamina0" in link_names()


def test_two_daemons_never_share_a_bridge(tmp_path: Path) -> None:
    first, second = (Networks(tmp_path / name, tmp_path / f"{name}-run") for name in ("a", "b"))
    first.start({})
    second.start({})
    assert {first.bridge_name, second.bridge_name} == {"lamina0", "lamina1"}
    first.close()
    second.close()
    assert link_names() == ["lo"]


def test_a_bridge_of_somebody_else_is_used_and_kept(tmp_path: Path) -> None:
    with Netlink() as opened:
        opened.run(netlink.add_bridge("mine", mac="02:42:00:00:00:01"))
        link = opened.link("mine")
        assert link is not None
        networks = Networks(tmp_path / "files", tmp_path / "run", bridge="mine")
        with pytest.raises(InvalidArgument, match="no IPv4 address"):
            networks.start({})
        networks.close()
        opened.run(netlink.add_address(link.index, IPv4Interface("10.77.0.1/24")))
    networks = Networks(tmp_path / "files", tmp_path / "run", bridge="mine")
    networks.start({})
    with pytest.raises(Conflict):
        Networks(tmp_path / "files2", tmp_path / "run2", bridge="mine").start({})
    networks.close()
    assert "mine" in link_names()


def test_a_missing_bridge_and_one_that_is_no_bridge_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="bridge nope does not exist"):
        Networks(tmp_path / "files", tmp_path / "run", bridge="nope").start({})
    with pytest.raises(InvalidArgument, match="not a bridge"):
        Networks(tmp_path / "files", tmp_path / "run", bridge="lo").start({})


def test_without_a_bridge_default_means_none_and_bridge_is_refused(tmp_path: Path) -> None:
    networks = Networks(tmp_path / "files", tmp_path / "run", bridge="none")
    networks.start({})
    assert link_names() == ["lo"]
    joined = networks.join(new_container_id(), "default")
    assert joined.netns is None
    assert list(mapping(joined.settings, "Networks")) == ["none"]
    with pytest.raises(InvalidArgument, match="switched off"):
        networks.join(new_container_id(), "bridge")
    assert [network["Name"] for network in networks.list()] == ["host", "none"]
    with pytest.raises(NoSuchNetwork):
        networks.inspect("bridge")
    networks.close()


def test_host_and_shared_networks_need_no_namespace(networks: Networks) -> None:
    assert networks.join(new_container_id(), "host").netns is None
    assert networks.join(new_container_id(), f"container:{'a' * 64}").settings["Networks"] == {}
    assert len(mapping(networks.inspect("host"), "Containers")) == 1


def test_user_defined_networks_are_named_as_not_served(networks: Networks) -> None:
    with pytest.raises(NotServed, match="network blue"):
        networks.join(new_container_id(), "blue")


def test_networks_are_found_by_name_id_and_prefix(networks: Networks) -> None:
    bridge = networks.inspect("bridge")
    assert networks.inspect(text(bridge, "Id")[:12]) == bridge
    with pytest.raises(NoSuchNetwork, match="network zzz not found"):
        networks.inspect("zzz")


@pytest.mark.parametrize("name", ["a b", "x" * 16, 'a"', "-x", "a/b", "a;b"])
def test_a_bridge_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid bridge name"):
        Networks(tmp_path / "files", tmp_path / "run", bridge=name)
