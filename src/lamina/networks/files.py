"""A container's hostname, hosts and resolv.conf: what is in them, and writing them (blocking)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from lamina.errors import InvalidArgument
from lamina.kernel.durable import write_file_lazy

_LOCALHOST = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
"""Used when the host names no server that a container can reach. Source: moby libnetwork resolvconf, the defaults."""

HOST_RESOLV_CONF = Path("/etc/resolv.conf")
SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
_MAX_HOST_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DnsChoice:
    """What the user asked for; an empty tuple means "as the host has it"."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The three directives of resolv.conf(5) that matter; a later `search` or `options` line replaces an earlier."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EtcFiles:
    """The contents of the three files, ready to be written."""

    hostname: bytes
    hosts: bytes
    resolv_conf: bytes
    resolv_conf_hash: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.resolv_conf).hexdigest()
        object.__setattr__(self, "resolv_conf_hash", f"sha256:{digest}".encode())


def hostname_file(hostname: str) -> bytes:
    return f"{hostname}\n".encode()


def hosts_file(
    hostname: str,
    *,
    domain: str = "",
    address: IPv4Address | None = None,
    extra_hosts: Sequence[str] = (),
    host_gateway: IPv4Address | None = None,
) -> bytes:
    """The hosts file of a container in its own network namespace.

    Raises:
        InvalidArgument: an extra host is not NAME:ADDRESS.
    """
    lines = list(_LOCALHOST)
    lines.extend(parse_extra_host(entry, host_gateway=host_gateway) for entry in extra_hosts)
    if address is not None and hostname:
        # Docker: the whole name first, then its first label, whether the domain came apart or within the host name.
        whole = f"{hostname}.{domain}" if domain else hostname
        label = whole.partition(".")[0]
        lines.append((str(address), whole if label == whole else f"{whole} {label}"))
    return _as_bytes(lines)


def shared_hosts_file(
    host_file: bytes, *, extra_hosts: Sequence[str] = (), host_gateway: IPv4Address | None = None
) -> bytes:
    """The hosts file of a container in the host's network: the host's own, and the extra hosts."""
    added = _as_bytes([parse_extra_host(entry, host_gateway=host_gateway) for entry in extra_hosts])
    if added and host_file and not host_file.endswith(b"\n"):
        host_file += b"\n"
    return host_file + added


def parse_extra_host(entry: str, *, host_gateway: IPv4Address | None) -> tuple[str, str]:
    """(address, name) of `NAME:ADDRESS` or `NAME=ADDRESS`; the address may be `host-gateway`.

    Raises:
        InvalidArgument: it is neither.
    """
    equals, colon = entry.find("="), entry.find(":")
    at = equals if equals >= 0 and (colon < 0 or equals < colon) else colon
    name, address = (entry[:at], entry[at + 1 :]) if at > 0 else ("", "")
    if not name or any(character.isspace() for character in name):
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if address == "host-gateway":
        if host_gateway is None:
            raise InvalidArgument(
                f"unable to derive the IP value for host-gateway in {entry!r}: there is no bridge",
                hint="write the address itself",
            )
        return str(host_gateway), name
    try:
        return str(ip_address(address.strip("[]"))), name
    except ValueError as error:
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from error


def parse_resolv_conf(data: bytes) -> ResolvConf:
    """Read resolv.conf(5); what is no directive is skipped."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        match words:
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["search" | "domain", *names]:
                search = tuple(names)
            case ["options", *chosen]:
                options = tuple(chosen)
            case _:
                continue
    return ResolvConf(tuple(nameservers), search, options)


def resolv_conf_file(host: ResolvConf, choice: DnsChoice, *, shares_host_network: bool) -> bytes:
    """The container's resolv.conf.

    In a namespace of its own, a container reaches neither the host's loopback nor (without IPv6) an IPv6 server, so
    such servers of the host are left out, and if none is left the fallback is used. A search of "." means none.

    Source: moby libnetwork resolvconf.
    """
    nameservers = choice.nameservers or host.nameservers
    if not choice.nameservers and not shares_host_network:
        nameservers = tuple(filter(_is_reachable, host.nameservers)) or FALLBACK_NAMESERVERS
    search = choice.search or host.search
    if search == (".",):
        search = ()
    options = choice.options or host.options
    lines = [f"search {' '.join(search)}"] if search else []
    lines = [f"nameserver {server}" for server in nameservers] + lines
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines).encode()


def read_host_resolv_conf(main: Path = HOST_RESOLV_CONF, systemd: Path = SYSTEMD_RESOLV_CONF) -> bytes:
    """The host's resolv.conf; empty when there is none.

    When the host's only server is systemd-resolved's stub, the file that names the real servers is read instead.
    """
    data = _read(main)
    if parse_resolv_conf(data).nameservers == ("127.0.0.53",) and systemd.exists():
        return _read(systemd)
    return data


def read_host_hosts(path: Path = Path("/etc/hosts")) -> bytes:
    """The host's hosts file; empty when there is none."""
    return _read(path)


def write_files(directory: Path, files: EtcFiles) -> None:
    """Write the files into the container's own directory, readable by everybody.

    They are made anew at every start, so they need not outlive a power cut.
    """
    write_file_lazy(directory / "hostname", files.hostname, mode=0o644)
    write_file_lazy(directory / "hosts", files.hosts, mode=0o644)
    write_file_lazy(directory / "resolv.conf", files.resolv_conf, mode=0o644)
    write_file_lazy(directory / "resolv.conf.hash", files.resolv_conf_hash, mode=0o644)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_HOST_FILE_BYTES)
    except FileNotFoundError:
        return b""


def _is_reachable(server: str) -> bool:
    try:
        address = ip_address(server.split("%", 1)[0])
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback


def _as_bytes(lines: Sequence[tuple[str, str]]) -> bytes:
    return "".join(f"{address}\t{names}\n" for address, names in lines).encode()
