"""One repository at one registry: manifests and blobs, in and out (async)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import aiohttp
from yarl import URL

from lamina.distribution.auth import Authorizer, TokenRequest
from lamina.distribution.endpoints import Endpoint, address_of
from lamina.distribution.failures import Asked, Unreachable, refused, unreachable
from lamina.distribution.retry import Retry
from lamina.distribution.transport import Request, Transport, read_bounded
from lamina.errors import DigestMismatch, LaminaError, SizeMismatch, Unavailable
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, algorithm_of
from lamina.oci.manifest import MAX_MANIFEST_BYTES
from lamina.oci.mediatype import ACCEPTED
from lamina.wire.engine.auth import RegistryAuth
from lamina.wire.registry import challenge, codes, paths, ranges


@dataclass(frozen=True, slots=True)
class Served:
    """A manifest's bytes, as the registry gave them, and what it says that they are."""

    raw: bytes
    media_type: str


class Repository:
    """What can be asked of one repository with one set of credentials.

    `name` is the repository as the registry knows it, `familiar` as the user does.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        familiar: str,
        *,
        transport: Transport,
        auth: RegistryAuth | None,
        retry: Retry,
        is_push: bool = False,
        scope: str | None = None,
    ) -> None:
        """`scope`: what tokens are asked for; None: to pull from, or push to, this repository."""
        self.endpoint = endpoint
        self.name = name
        self._familiar = familiar
        self._transport = transport
        self._auth = auth
        self._retry = retry
        self._is_push = is_push
        whole = challenge.push_scope(name) if is_push else challenge.pull_scope(name)
        self._scope = whole if scope is None else scope
        self._connected: tuple[URL, Authorizer] | None = None
        self._connecting = asyncio.Lock()

    async def check_access(self) -> None:
        """Ask for nothing but to be let in.

        Raises:
            Unauthenticated, PermissionDenied: the registry does not take the credentials.
            Unavailable: it cannot be reached.
        """

        async def step() -> None:
            async with self._sent("GET", "/v2/") as response:
                await _expect(response, (200,), self._asked("/v2/"))

        await self._retry.run(step)

    # in

    async def manifest(self, reference: str, subject: str) -> Served:
        """The manifest that a tag or digest names, at most 4 MiB. `subject` is how errors call it.

        Raises:
            NotFound, Unauthenticated, PermissionDenied, Unavailable: the registry says so.
        """
        path = paths.manifest(self.name, reference)
        asked = self._asked(subject)

        async def step() -> Served:
            async with self._sent("GET", path, headers={"Accept": ", ".join(ACCEPTED)}) as response:
                await _expect(response, (200,), asked)
                return Served(
                    await read_bounded(response, MAX_MANIFEST_BYTES), response.headers.get("Content-Type", "")
                )

        return await self._retry.run(step)

    async def small_blob(self, descriptor: Descriptor, *, limit_bytes: int) -> bytes:
        """A blob that fits into memory, verified.

        Raises:
            Unavailable: it is larger than `limit_bytes`.
            DigestMismatch, SizeMismatch: the bytes are not those of the descriptor.
        """
        if descriptor.size_bytes > limit_bytes:
            raise Unavailable(f"{descriptor.digest} has {descriptor.size_bytes} bytes, the limit is {limit_bytes}")
        found = b"".join([chunk async for chunk in self.blob(descriptor)])
        if len(found) != descriptor.size_bytes:
            raise SizeMismatch(
                f"blob {descriptor.digest}: {descriptor.size_bytes} bytes announced, {len(found)} received"
            )
        algorithm = algorithm_of(descriptor.digest)
        actual = f"{algorithm}:{hashlib.new(algorithm, found).hexdigest()}"
        if actual != descriptor.digest:
            raise DigestMismatch(f"registry {self.endpoint.host} sent {actual} where {descriptor.digest} was asked for")
        return found

    async def blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob in order, exactly `size_bytes` of them; not hashed here.

        A connection that breaks off is taken up again where it broke.

        Raises:
            SizeMismatch: there are more.
            NotFound, Unavailable and others: as the registry says.
        """
        offset, failures = 0, 0
        while True:
            before = offset
            try:
                async with aclosing(self._blob_from(descriptor, offset)) as chunks:
                    async for chunk in chunks:
                        offset += len(chunk)
                        yield chunk
                if offset == descriptor.size_bytes:
                    return
                raise Unreachable(f"registry {self.endpoint.host} broke off the connection: unexpected EOF")
            except Unreachable as error:
                failures = 1 if offset > before else failures + 1
                # A registry that is being restarted refuses connections for a moment, so half a blob waits for it.
                if failures >= self._retry.attempts or (error.is_settled and offset == 0):
                    raise
                await self._retry.pause(failures)

    async def _blob_from(self, descriptor: Descriptor, offset: int) -> AsyncGenerator[bytes, None]:
        headers = {"Range": ranges.from_offset(offset)} if offset else {}
        asked = self._asked(f"blob {descriptor.digest} of {self._familiar}")
        async with self._sent("GET", paths.blob(self.name, descriptor.digest), headers=headers) as response:
            await _expect(response, (200, 206) if offset else (200,), asked)
            skip = offset if response.status == 200 else 0
            if response.status == 206:
                span = ranges.answered(response.headers.get("Content-Range", ""))
                if span is None or span.start != offset:
                    raise Unreachable(f"registry {self.endpoint.host} sends another range than asked for")
            position = offset - skip
            async for chunk in response.content.iter_any():
                position += len(chunk)
                if position > descriptor.size_bytes:
                    raise SizeMismatch(
                        f"blob {descriptor.digest}: registry {self.endpoint.host} sends more than the announced "
                        f"{descriptor.size_bytes} bytes"
                    )
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:] if skip else chunk
                skip = 0

    # out

    async def has_blob(self, digest: Digest) -> int | None:
        """The size of a blob that the repository has; None when it has it not."""

        async def step() -> int | None:
            async with self._sent("HEAD", paths.blob(self.name, digest)) as response:
                if response.status == 404:
                    return None
                await _expect(response, (200,), self._asked(f"blob {digest} of {self._familiar}"))
                return response.content_length or 0

        return await self._retry.run(step)

    async def mount(self, digest: Digest, source: str) -> bool:
        """Let the repository have the blob that `source` has; False when the registry would rather be sent it."""
        query = {"mount": digest, "from": source}
        async with self._sent("POST", paths.uploads(self.name), query=query) as response:
            if response.status == 202:
                await self._abandon(response)
                return False
            return response.status == 201

    async def upload(self, digest: Digest, size_bytes: int, body: Callable[[], AsyncIterator[bytes]]) -> None:
        """Send a blob at once. `body` is called again for every try and gives exactly `size_bytes`."""
        asked = self._asked(f"blob {digest} of {self._familiar}")

        async def step() -> None:
            async with self._sent("POST", paths.uploads(self.name), headers={"Content-Length": "0"}) as response:
                await _expect(response, (202,), asked)
                target = _location(response)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
            url = target.update_query({"digest": digest})
            async with self._sent_to("PUT", url, headers=headers, body=body) as response:
                await _expect(response, (201,), asked)

        await self._retry.run(step)

    async def put_manifest(self, reference: str, raw: bytes, media_type: str) -> None:
        """Send a manifest; its blobs are all there."""

        async def step() -> None:
            path = paths.manifest(self.name, reference)

            async def body() -> AsyncIterator[bytes]:
                yield raw

            headers = {"Content-Type": media_type, "Content-Length": str(len(raw))}
            async with self._sent("PUT", path, headers=headers, body=body) as response:
                await _expect(response, (200, 201), self._asked(f"manifest for {self._familiar}:{reference}"))

        await self._retry.run(step)

    async def _abandon(self, response: aiohttp.ClientResponse) -> None:
        async with self._sent_to("DELETE", _location(response)):
            return  # whatever it answers: the registry forgets uploads by itself in time

    # one request, with the credentials it takes

    def _sent(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], AsyncIterator[bytes]] | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        url = URL.build(path=path, query=dict(query or {}))
        return self._sent_to(method, url, headers=headers, body=body)

    @asynccontextmanager
    async def _sent_to(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], AsyncIterator[bytes]] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        base, authorizer = await self._connect()
        request = Request(method, base.join(url), headers=headers or {})
        if request.url.origin() != base.origin():
            raise LaminaError(f"registry {self.endpoint.host} wants uploads sent to {address_of(request.url)}: refused")
        for is_last in (False, True):
            sent = replace(
                request,
                authorization=await authorizer.authorization(self._scope),
                body=body() if body is not None else None,
            )
            async with self._transport.send(sent, self.endpoint) as response:
                if response.status != 401 or is_last or response.url.origin() != base.origin():
                    yield response
                    return
                authorizer.challenged(_challenges(response))

    async def _connect(self) -> tuple[URL, Authorizer]:
        """Find the base that answers, and what it wants to know."""
        async with self._connecting:
            if self._connected is None:
                self._connected = await self._first_answer()
            return self._connected

    async def _first_answer(self) -> tuple[URL, Authorizer]:
        for base in self.endpoint.bases[:-1]:
            try:
                return await self._ping(base)
            except Unreachable:
                continue
        return await self._ping(self.endpoint.bases[-1])

    async def _ping(self, base: URL) -> tuple[URL, Authorizer]:
        async with self._transport.send(Request("GET", base.with_path("/v2/")), self.endpoint) as response:
            if response.status == 429 or response.status >= 500:
                await _expect(response, (200,), self._asked("/v2/"))

            async def fetch(request: TokenRequest) -> bytes:
                return await self._transport.fetch_token(request, self.endpoint)

            authorizer = Authorizer(base, self._auth, fetch)
            if response.status == 401:
                authorizer.challenged(_challenges(response))
            return base, authorizer

    def _asked(self, subject: str) -> Asked:
        has_credentials = self._auth is not None and not self._auth.is_empty
        return Asked(self.endpoint.host, self._familiar, subject, self._is_push, has_credentials)


async def _expect(response: aiohttp.ClientResponse, statuses: tuple[int, ...], asked: Asked) -> None:
    """Raise what the answer means when its status is none of `statuses`."""
    if response.status in statuses:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise Unavailable(f"registry {asked.host} sends {asked.subject} in the encoding {encoding[:40]!r}, unasked")
        return
    try:
        body = await read_bounded(response, codes.MAX_ERROR_BODY_BYTES)
    except Unavailable:
        body = b""  # an answer that long explains nothing; the status does
    except aiohttp.ClientError as error:
        raise unreachable(asked.host, error) from error
    raise refused(asked, response.status, codes.decode(body), retry_after=response.headers.get("Retry-After", ""))


def _challenges(response: aiohttp.ClientResponse) -> tuple[challenge.Challenge, ...]:
    found: list[challenge.Challenge] = []
    for header in response.headers.getall("WWW-Authenticate", [])[:8]:
        found += challenge.decode(header)
    return tuple(found)


def _location(response: aiohttp.ClientResponse) -> URL:
    try:
        return response.url.join(URL(response.headers.get("Location", "")))
    except ValueError as error:
        raise LaminaError(f"registry {address_of(response.url)} names an upload that is no URL") from error
