"""A container's hostname, hosts and resolv.conf."""

import hashlib
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lamina.errors import InvalidArgument
from lamina.networks.files import (
    FALLBACK_NAMESERVERS,
    DnsChoice,
    EtcFiles,
    ResolvConf,
    hostname_file,
    hosts_file,
    parse_extra_host,
    parse_resolv_conf,
    read_host_resolv_conf,
    resolv_conf_file,
    shared_hosts_file,
    write_files,
)


def test_hosts_names_the_container_last() -> None:
    found = hosts_file(
        "web", domain="example.org", address=IPv4Address("172.17.0.2"), extra_hosts=("db:10.0.0.5", "six=[::5]")
    )
    lines = found.decode().splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-3:] == ["10.0.0.5\tdb", "::5\tsix", "172.17.0.2\tweb.example.org web"]


@pytest.mark.parametrize(
    ("hostname", "names"), [("web", "web"), ("web.example.org", "web.example.org web"), ("a.b", "a.b a")]
)
def test_the_first_label_of_a_long_host_name_is_a_name_too(hostname: str, names: str) -> None:
    last = hosts_file(hostname, address=IPv4Address("172.17.0.2")).decode().splitlines()[-1]
    assert last == f"172.17.0.2\t{names}"


def test_host_gateway_stands_for_the_bridge_address() -> None:
    assert parse_extra_host("h:host-gateway", host_gateway=IPv4Address("172.17.0.1")) == ("172.17.0.1", "h")
    with pytest.raises(InvalidArgument, match="host-gateway"):
        parse_extra_host("h:host-gateway", host_gateway=None)


def test_an_ipv6_extra_host_keeps_its_colons() -> None:
    assert parse_extra_host("h:2001:db8::1", host_gateway=None) == ("2001:db8::1", "h")


@pytest.mark.parametrize("entry", ["", "name", ":1.2.3.4", "name:", "name:1.2.3", "a b:1.2.3.4", "n:1.2.3.4\nx"])
def test_a_bad_extra_host_is_refused(entry: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_extra_host(entry, host_gateway=None)


def test_the_hosts_file_of_the_host_is_kept_and_added_to() -> None:
    assert shared_hosts_file(b"127.0.0.1 here", extra_hosts=("db:10.0.0.5",)) == b"127.0.0.1 here\n10.0.0.5\tdb\n"


HOST = ResolvConf(("127.0.0.53", "10.0.0.1", "fe80::1%eth0", "2001:db8::1"), ("corp", "lan"), ("ndots:2",))


def test_servers_a_container_cannot_reach_are_left_out() -> None:
    found = resolv_conf_file(HOST, DnsChoice(), shares_host_network=False)
    assert found == b"nameserver 10.0.0.1\nsearch corp lan\noptions ndots:2\n"


def test_in_the_host_network_all_servers_stay() -> None:
    found = resolv_conf_file(HOST, DnsChoice(), shares_host_network=True)
    assert found.startswith(b"nameserver 127.0.0.53\nnameserver 10.0.0.1\n")


def test_without_a_reachable_server_the_fallback_is_used() -> None:
    found = resolv_conf_file(ResolvConf(("127.0.0.1",)), DnsChoice(), shares_host_network=False)
    assert found.decode().split()[1::2] == list(FALLBACK_NAMESERVERS)


def test_what_the_user_chose_wins_and_a_dot_means_no_search() -> None:
    choice = DnsChoice(("127.0.0.1",), (".",), ("rotate",))
    assert resolv_conf_file(HOST, choice, shares_host_network=False) == b"nameserver 127.0.0.1\noptions rotate\n"


def test_comments_and_later_lines_in_resolv_conf() -> None:
    text = (
        b"# c\nnameserver 1.1.1.1 # first\nsearch a\n;x\nsearch b c\ndomain d\noptions x y\nbogus\nnameserver\n\xff\n"
    )
    assert parse_resolv_conf(text) == ResolvConf(("1.1.1.1",), ("d",), ("x", "y"))


def test_behind_systemd_resolved_the_real_servers_are_read(tmp_path: Path) -> None:
    main, real = tmp_path / "main", tmp_path / "real"
    main.write_text("nameserver 127.0.0.53\n")
    assert read_host_resolv_conf(main, real) == b"nameserver 127.0.0.53\n"
    real.write_text("nameserver 9.9.9.9\n")
    assert read_host_resolv_conf(main, real) == b"nameserver 9.9.9.9\n"
    main.write_text("nameserver 127.0.0.53\nnameserver 1.1.1.1\n")
    assert b"1.1.1.1" in read_host_resolv_conf(main, real)
    assert read_host_resolv_conf(tmp_path / "none", real) == b""


def test_the_files_are_written_with_the_hash_of_resolv_conf(tmp_path: Path) -> None:
    write_files(tmp_path, EtcFiles(hostname_file("web"), hosts_file("web"), b"nameserver 1.1.1.1\n"))
    assert (tmp_path / "hostname").read_bytes() == b"web\n"
    digest = hashlib.sha256(b"nameserver 1.1.1.1\n").hexdigest()
    assert (tmp_path / "resolv.conf.hash").read_text() == f"sha256:{digest}"
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o644}
