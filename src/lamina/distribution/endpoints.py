"""Where a registry may be reached, best first (async: names are looked up)."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from yarl import URL

from lamina.distribution.registry_config import RegistryConfig, as_address, split_domain
from lamina.oci.reference import DEFAULT_DOMAIN

DOCKER_HUB = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One registry. `bases` are tried in order until one answers: `https`, and `http` where that is allowed."""

    host: str
    bases: tuple[URL, ...]
    is_insecure: bool = False
    is_mirror: bool = False


def address_of(url: URL) -> str:
    """`HOST` or `HOST:PORT`, as it was written: what errors and `certs.d` go by."""
    host = url.host_subcomponent or ""
    return host if url.explicit_port is None else f"{host}:{url.explicit_port}"


async def endpoints_for(domain: str, config: RegistryConfig) -> tuple[Endpoint, ...]:
    """The endpoints of the registry that a reference names, mirrors first."""
    if domain != DEFAULT_DOMAIN:
        return (await _endpoint(domain, config),)
    mirrors = [await _mirror(URL(mirror), config) for mirror in config.mirrors]
    return (*mirrors, Endpoint(DOCKER_HUB, (URL.build(scheme="https", host=DOCKER_HUB),)))


async def _endpoint(domain: str, config: RegistryConfig) -> Endpoint:
    insecure = await is_insecure(domain, config)
    schemes = ("https", "http") if insecure else ("https",)
    return Endpoint(domain, tuple(URL(f"{scheme}://{domain}") for scheme in schemes), is_insecure=insecure)


async def _mirror(base: URL, config: RegistryConfig) -> Endpoint:
    domain = address_of(base)
    return Endpoint(domain, (base,), is_insecure=await is_insecure(domain, config), is_mirror=True)


async def is_insecure(domain: str, config: RegistryConfig) -> bool:
    """Whether this registry may go without TLS, or with a certificate that nobody vouches for."""
    if config.is_insecure_host(domain):
        return True
    host, _ = split_domain(domain)
    if as_address(host) is not None:
        return False
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = [as_address(str(address[4][0])) for address in found]
    return bool(addresses) and all(address and config.is_insecure_address(address) for address in addresses)
