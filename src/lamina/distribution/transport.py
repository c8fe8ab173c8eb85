"""Requests to registries: one session for the daemon, TLS by host, redirects with care (async).

Redirects are followed here and not in the HTTP library: `Authorization` goes only where the request was meant for, an
encrypted conversation never goes on in the clear, and each host is trusted by its own rules.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from lamina import __version__
from lamina.distribution.auth import MAX_TOKEN_BYTES, TokenRequest
from lamina.distribution.endpoints import Endpoint, address_of
from lamina.distribution.failures import Unreachable, unreachable
from lamina.distribution.registry_config import RegistryConfig
from lamina.distribution.tls import TlsContexts
from lamina.errors import PermissionDenied, Unauthenticated, Unavailable
from lamina.workers import Workers

CONNECT_S = 20.0
SILENCE_S = 60.0
MAX_REDIRECTS = 5
READ_BYTES = 2 << 20
"""How much may wait unread per connection: large reads keep the event loop's share of a download small."""

_REDIRECTS = (301, 302, 303, 307, 308)
_FAILURES = (aiohttp.ClientError, asyncio.TimeoutError, ssl.SSLError, ConnectionError)


@dataclass(frozen=True, slots=True)
class Request:
    """One request to an endpoint. `authorization` is for the host of `url` alone."""

    method: str
    url: URL
    authorization: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] | None = None


class Transport:
    """Carries requests. Close it at the end."""

    def __init__(self, config: RegistryConfig, workers: Workers, *, silence_s: float = SILENCE_S) -> None:
        self._tls = TlsContexts(config.certs_dirs)
        self._workers = workers
        self._silence_s = silence_s
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def send(self, request: Request, endpoint: Endpoint) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status; redirects of GET and HEAD are followed.

        Raises:
            Unreachable, Unavailable: no answer, or it broke off while it was read.
            PermissionDenied: a redirect that must not be followed.
        """
        url = request.url
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._once(request, url, endpoint)
            try:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or request.method not in ("GET", "HEAD") or not location:
                    yield response
                    return
                url = _next(url, location, endpoint)
            except _FAILURES as error:
                raise unreachable(address_of(url), error) from error
            finally:
                response.release()
        raise Unavailable(f"registry {endpoint.host} redirects in circles")

    async def fetch_token(self, request: TokenRequest, endpoint: Endpoint) -> bytes:
        """The answer of a token server.

        Raises:
            Unauthenticated: it refuses.
        """
        sent = Request(
            "GET" if request.form is None else "POST",
            request.url,
            request.authorization,
            {} if request.form is None else {"Content-Type": "application/x-www-form-urlencoded"},
            None if request.form is None else URL.build(query=request.form).raw_query_string.encode(),
        )
        try:
            response = await self._once(sent, request.url, endpoint)
            try:
                if response.status == 200:
                    return await read_bounded(response, MAX_TOKEN_BYTES)
            finally:
                response.release()
        except _FAILURES as error:
            raise unreachable(address_of(request.url), error) from error
        where = f"the token server {address_of(request.url)} of registry {endpoint.host}"
        if response.status == 429 or response.status >= 500:
            raise Unreachable(f"{where} answered {response.status}")
        raise Unauthenticated(
            f"{where} refused with status {response.status}: unauthorized: authentication required",
            hint=f"log in with `docker login {endpoint.host}`",
        )

    async def aclose(self) -> None:
        """End idle connections. Twice is fine."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _once(self, request: Request, url: URL, endpoint: Endpoint) -> aiohttp.ClientResponse:
        headers = {"Accept-Encoding": "identity", **request.headers}
        if request.authorization is not None and url.origin() == request.url.origin():
            headers["Authorization"] = request.authorization
        context: ssl.SSLContext | bool = True
        if url.scheme == "https":
            is_own = url.host == endpoint.bases[0].host
            context = await self._workers.call(
                self._tls.context, address_of(url), insecure=endpoint.is_insecure and is_own
            )
        try:
            return await self._open().request(
                request.method, url, headers=headers, data=request.body, ssl=context, allow_redirects=False
            )
        except _FAILURES as error:
            raise unreachable(address_of(url), error) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15.0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._silence_s),
                headers={"User-Agent": f"lamina/{__version__}"},
                auto_decompress=False,
                read_bufsize=READ_BYTES,
                max_field_size=64 << 10,
                max_line_size=64 << 10,
            )
        return self._session


async def read_bounded(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The whole body.

    Raises:
        Unavailable: it is longer than `limit_bytes`.
    """
    found = bytearray()
    async for chunk in response.content.iter_any():
        found += chunk
        if len(found) > limit_bytes:
            raise Unavailable(f"{address_of(response.url)} sends more than {limit_bytes} bytes where less belongs")
    return bytes(found)


def _next(url: URL, location: str, endpoint: Endpoint) -> URL:
    try:
        target = url.join(URL(location))
    except ValueError as error:
        raise Unavailable(f"registry {endpoint.host} redirects to something that is no URL") from error
    if target.scheme not in ("http", "https") or not target.host:
        raise PermissionDenied(f"registry {endpoint.host} redirects to {target.scheme!r}: not followed")
    if url.scheme == "https" and target.scheme == "http" and not endpoint.is_insecure:
        raise PermissionDenied(
            f"registry {endpoint.host} redirects to {address_of(target)} without encryption: not followed"
        )
    return target.with_user(None)
