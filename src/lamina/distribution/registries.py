"""The way from a reference to the repositories that may have it (async)."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from lamina.distribution.endpoints import endpoints_for
from lamina.distribution.registry_config import RegistryConfig
from lamina.distribution.repository import Repository
from lamina.distribution.retry import Retry
from lamina.distribution.transport import Transport
from lamina.oci.reference import DEFAULT_DOMAIN, Reference
from lamina.wire.engine.auth import RegistryAuth
from lamina.workers import Workers

_DOCKER_ADDRESSES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com"})


class Registries:
    """Every registry, as one daemon speaks to them: its settings, connections and bound on downloads at once."""

    def __init__(self, config: RegistryConfig, workers: Workers, *, retry: Retry | None = None) -> None:
        self._config = config
        self._transport = Transport(config, workers)
        self._retry = retry or Retry()
        self.downloads = asyncio.Semaphore(config.max_concurrent_downloads)

    async def pull_from(self, reference: Reference, auth: RegistryAuth | None) -> tuple[Repository, ...]:
        """The repositories to try, in order: mirrors, then the registry itself. Mirrors get no credentials."""
        endpoints = await endpoints_for(reference.domain, self._config)
        own = _for_this_registry(reference.domain, auth)
        return tuple(
            Repository(
                endpoint,
                reference.repository_path,
                reference.familiar_name,
                transport=self._transport,
                auth=None if endpoint.is_mirror else own,
                retry=self._retry,
            )
            for endpoint in endpoints
        )

    async def push_to(self, reference: Reference, auth: RegistryAuth | None) -> Repository:
        """The repository to push to: never a mirror."""
        endpoint = (await endpoints_for(reference.domain, self._config))[-1]
        return Repository(
            endpoint,
            reference.repository_path,
            reference.familiar_name,
            transport=self._transport,
            auth=_for_this_registry(reference.domain, auth),
            retry=self._retry,
            is_push=True,
        )

    async def door_of(self, auth: RegistryAuth) -> Repository:
        """The registry that the credentials are for, as a repository without a name: to try the credentials at."""
        domain = _domain(auth.server_address)
        endpoint = (await endpoints_for(domain, self._config))[-1]
        return Repository(
            endpoint, "", domain, transport=self._transport, auth=auth, retry=self._retry, scope=""
        )  # fmt: skip

    async def aclose(self) -> None:
        """End idle connections. Twice is fine."""
        await self._transport.aclose()


def _domain(address: str) -> str:
    """The registry of a server address as clients write it: with or without scheme and path; empty is Docker Hub."""
    host = urlsplit(address if "://" in address else f"//{address}").netloc.rpartition("@")[2].lower()
    if not host or host in _DOCKER_ADDRESSES:
        return DEFAULT_DOMAIN
    return host


def _for_this_registry(domain: str, auth: RegistryAuth | None) -> RegistryAuth | None:
    """Credentials that say which registry they are for go to no other (CVE-2021-41092)."""
    if auth is None or auth.is_empty:
        return None
    address = auth.server_address
    if not address:
        return auth
    meant = _domain(address)
    if domain == DEFAULT_DOMAIN:
        return auth if meant == DEFAULT_DOMAIN else None
    return auth if meant in (domain.lower(), domain.lower().removesuffix(":443")) else None
