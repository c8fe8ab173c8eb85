"""Containers on the default bridge, driven by the real client."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.conftest import KIND
from tests.e2e.engines import Engine

only_lamina = pytest.mark.skipif("dockerd" in KIND, reason="dockerd is judged by its own tests")


def bridge_of(engine: Engine) -> str:
    network = json.loads(engine.out("network", "inspect", "bridge"))[0]
    return network["Options"]["com.docker.network.bridge.name"]


def ports_of(bridge: str) -> list[str]:
    return os.listdir(f"/sys/class/net/{bridge}/brif")


def sandboxes(engine: Engine) -> list[str]:
    return os.listdir(engine.exec_root / "netns")


def wait_until(holds) -> None:
    """The kernel takes interfaces away after the last process has gone, in its own time."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "did not come true within 10 s"
        time.sleep(0.02)


def address(engine: Engine, name: str) -> str:
    return engine.out("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name)


def test_two_containers_talk_and_know_their_own_names(engine: Engine) -> None:
    server = engine.out("run", "-d", "-h", "server", "busybox", "sh", "-c", "echo found | nc -l -p 99")
    at = address(engine, server)
    script = f"for i in 1 2 3 4 5 6 7 8 9; do nc {at} 99 </dev/null && exit; sleep 0.2; done"
    assert engine.out("run", "--rm", "busybox", "sh", "-c", script) == "found"
    hosts = engine.out("run", "--rm", "-h", "me", "--add-host", "db:10.1.2.3", "--add-host", "up:host-gateway",
                       "busybox", "sh", "-c", "cat /etc/hosts; hostname -i")  # fmt: skip
    lines = [line.split() for line in hosts.splitlines()]
    assert ["10.1.2.3", "db"] in lines
    assert [json.loads(engine.out("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Gateway"], "up"] in lines
    assert lines[-2] == [lines[-1][0], "me"]


def test_dns_choices_reach_the_container(engine: Engine) -> None:
    shown = engine.out("run", "--rm", "--dns", "10.9.8.7", "--dns-search", "corp.example", "--dns-option", "ndots:3",
                       "busybox", "cat", "/etc/resolv.conf")  # fmt: skip
    assert shown.splitlines() == ["nameserver 10.9.8.7", "search corp.example", "options ndots:3"]


@only_lamina
def test_removing_a_container_removes_every_trace_of_its_network(engine: Engine) -> None:
    bridge = bridge_of(engine)
    name = engine.out("run", "-d", "busybox", "sleep", "60")
    assert len(ports_of(bridge)) == 1
    assert sandboxes(engine) == [name]
    shown = json.loads(engine.out("network", "inspect", "bridge"))[0]["Containers"]
    assert list(shown) == [name]
    assert shown[name]["IPv4Address"].startswith(address(engine, name))
    engine.docker("rm", "-f", name)
    assert sandboxes(engine) == []
    wait_until(lambda: ports_of(bridge) == [])
    assert json.loads(engine.out("network", "inspect", "bridge"))[0]["Containers"] == {}


@only_lamina
def test_a_stopped_container_gives_its_address_back_and_gets_one_at_its_next_start(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sleep", "60")
    first = address(engine, name)
    engine.docker("kill", name)
    engine.docker("wait", name)
    assert address(engine, name) == ""
    assert sandboxes(engine) == []
    other = engine.out("run", "-d", "busybox", "sleep", "60")
    assert address(engine, other) == first
    engine.docker("start", name)
    assert address(engine, name) not in {"", first}


@only_lamina
def test_after_a_crash_live_containers_keep_their_addresses_and_dead_sandboxes_go(fresh_engine: Engine) -> None:
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    bridge = bridge_of(engine)
    ids = json.loads(engine.out("network", "inspect", "bridge"))[0]["Id"]
    live = engine.out("run", "-d", "busybox", "sh", "-c", "while true; do echo still | nc -l -p 99; done")
    dead = engine.out("run", "-d", "busybox", "sleep", "1000")
    at = address(engine, live)
    pid = int(engine.out("inspect", "-f", "{{.State.Pid}}", dead))
    engine.kill()
    os.kill(pid, 9)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    engine.start()
    assert bridge_of(engine) == bridge
    assert json.loads(engine.out("network", "inspect", "bridge"))[0]["Id"] == ids
    assert sandboxes(engine) == [live]
    assert address(engine, live) == at
    script = f"for i in 1 2 3 4 5 6 7 8 9; do nc {at} 99 </dev/null && exit; sleep 0.2; done"
    assert engine.out("run", "--rm", "busybox", "sh", "-c", script) == "still"
    new = engine.out("run", "-d", "busybox", "sleep", "60")
    assert address(engine, new) != at
    engine.remove_containers()
    engine.stop()
    wait_until(lambda: not Path(f"/sys/class/net/{bridge}").exists())


@only_lamina
def test_networks_that_are_not_served_are_named(engine: Engine) -> None:
    assert b"not" in engine.docker("network", "create", "blue", check=False).stderr
    refused = engine.docker("run", "--rm", "--network", "blue", "busybox", check=False)
    assert refused.returncode == 125
    assert b"blue" in refused.stderr
    names = engine.out("network", "ls", "--format", "{{.Name}} {{.Driver}}").splitlines()
    assert names == ["bridge bridge", "host host", "none null"]


@only_lamina
def test_without_a_bridge_containers_get_none(fresh_engine: Engine) -> None:
    fresh_engine.arguments = ["--bridge=none"]
    engine = fresh_engine.start()
    engine.docker("load", stdin=images.busybox())
    assert engine.out("run", "--rm", "busybox", "ls", "/sys/class/net") == "lo"
    refused = engine.docker("run", "--rm", "--network", "bridge", "busybox", check=False)
    assert refused.returncode == 125
    assert b"--bridge none" in refused.stderr
