"""Which registries are asked how: mirrors, and registries that may go without TLS (pure)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from lamina.errors import InvalidArgument

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
DEFAULT_CERTS_DIRS = (Path("/etc/docker/certs.d"),)
DEFAULT_CONCURRENT_DOWNLOADS = 3


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """The daemon's registry settings.

    `mirrors` are base URLs, asked before Docker's own registry, in order. Registries on loopback are always insecure:
    TLS is tried first, without trust in the certificate, then plain HTTP.
    """

    mirrors: tuple[str, ...] = ()
    insecure_hosts: frozenset[str] = frozenset()
    insecure_networks: tuple[Network, ...] = LOOPBACK
    certs_dirs: tuple[Path, ...] = DEFAULT_CERTS_DIRS
    max_concurrent_downloads: int = DEFAULT_CONCURRENT_DOWNLOADS

    def is_insecure_host(self, domain: str) -> bool:
        """Whether `HOST[:PORT]` was named insecure, or is an address in an insecure network."""
        host, _ = split_domain(domain)
        if domain.lower() in self.insecure_hosts or host == "localhost":
            return True
        address = as_address(host)
        return address is not None and self.is_insecure_address(address)

    def is_insecure_address(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.insecure_networks)


def parse_config(
    mirrors: Sequence[str] = (),
    insecure: Iterable[str] = (),
    *,
    certs_dirs: Sequence[Path] = DEFAULT_CERTS_DIRS,
    max_concurrent_downloads: int = DEFAULT_CONCURRENT_DOWNLOADS,
) -> RegistryConfig:
    """Settings from the texts of `--registry-mirror` and `--insecure-registry` (host[:port] or CIDR).

    Raises:
        InvalidArgument: a text that is neither; the message names it.
    """
    hosts: set[str] = set()
    networks: list[Network] = list(LOOPBACK)
    for text in insecure:
        if "/" in text:
            networks.append(_network(text))
        else:
            hosts.add(text.lower())
    if max_concurrent_downloads < 1:
        raise InvalidArgument("max-concurrent-downloads must be at least 1")
    return RegistryConfig(
        mirrors=tuple(_mirror(mirror) for mirror in mirrors),
        insecure_hosts=frozenset(hosts),
        insecure_networks=tuple(networks),
        certs_dirs=tuple(certs_dirs),
        max_concurrent_downloads=max_concurrent_downloads,
    )


def split_domain(domain: str) -> tuple[str, int | None]:
    """`HOST[:PORT]` in two; brackets of an IPv6 address are taken off."""
    if domain.startswith("["):
        host, _, port = domain[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = domain.partition(":")
    return host.lower(), int(port) if port.isdigit() else None


def as_address(host: str) -> Address | None:
    """The address that `host` is when it is no name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(text: str) -> Network:
    if "://" in text:
        raise InvalidArgument(
            f"insecure registry {text!r} must not contain a scheme", hint="give HOST[:PORT] or a CIDR"
        )
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"insecure registry {text!r} is neither HOST[:PORT] nor a network: {error}") from error


def _mirror(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"invalid mirror {text!r}: expected http://HOST or https://HOST")
    if parts.username or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise InvalidArgument(f"invalid mirror {text!r}: user, path, query and fragment are not allowed")
    return f"{parts.scheme}://{parts.netloc}"
