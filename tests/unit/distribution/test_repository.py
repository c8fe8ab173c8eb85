"""One repository at a registry that answers what it likes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from lamina.distribution.failures import Unreachable
from lamina.distribution.registries import Registries
from lamina.distribution.registry_config import RegistryConfig
from lamina.distribution.repository import Repository
from lamina.distribution.retry import Retry
from lamina.errors import (
    DigestMismatch,
    LaminaError,
    NotFound,
    PermissionDenied,
    SizeMismatch,
    Unauthenticated,
    Unavailable,
)
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, digest_of
from lamina.wire.engine.auth import RegistryAuth
from lamina.workers import Workers
from tests.fakes.registries import Hostile, client, free_port, hostile, repository

DATA = bytes(range(256)) * 2000
BLOB = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))
BLOB_PATH = f"/v2/a/b/blobs/{BLOB.digest}"
ME = RegistryAuth("me", "secret")

Case = Callable[[Hostile, Repository], Awaitable[None]]


def play(case: Case, auth: RegistryAuth | None = None) -> None:
    async def run() -> None:
        async with hostile() as registry, client() as registries:
            await case(registry, await repository(registries, f"127.0.0.1:{registry.port}/a/b", auth))

    asyncio.run(run())


async def all_of(source: Repository, blob: Descriptor = BLOB) -> bytes:
    return b"".join([chunk async for chunk in source.blob(blob)])


def test_a_blob_comes_whole() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        registry.on("GET", BLOB_PATH, web.Response(body=DATA))
        assert await all_of(source) == DATA
        assert await source.small_blob(BLOB, limit_bytes=1 << 20) == DATA

    play(case)


def test_a_download_that_breaks_off_goes_on_where_it_broke() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        asked: list[str] = []

        async def breaking(request: web.Request) -> web.StreamResponse:
            asked.append(request.headers.get("Range", ""))
            start = int(asked[-1][6:-1]) if asked[-1] else 0
            answer = web.StreamResponse(status=206 if start else 200)
            answer.content_length = len(DATA) - start
            if start:
                answer.headers["Content-Range"] = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
            await answer.prepare(request)
            await answer.write(DATA[start : start + 100_000])
            assert request.transport is not None
            if start + 100_000 < len(DATA):
                request.transport.close()
            return answer

        registry.on("GET", BLOB_PATH, breaking)
        assert await all_of(source) == DATA
        assert asked[0] == ""
        assert len(asked) == 6
        assert all(header.startswith("bytes=") for header in asked[1:])

    play(case)


def test_a_registry_without_ranges_is_read_again_from_the_start() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        tries = 0

        async def breaking(request: web.Request) -> web.StreamResponse:
            nonlocal tries
            tries += 1
            answer = web.StreamResponse()
            answer.content_length = len(DATA)
            await answer.prepare(request)
            await answer.write(DATA[:50_000] if tries == 1 else DATA)
            if tries == 1 and request.transport is not None:
                request.transport.close()
            return answer

        registry.on("GET", BLOB_PATH, breaking)
        assert await all_of(source) == DATA

    play(case)


def test_another_range_than_asked_for_is_not_taken() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        async def shifted(request: web.Request) -> web.StreamResponse:
            if "Range" in request.headers:
                return web.Response(status=206, body=DATA, headers={"Content-Range": f"bytes 0-{len(DATA) - 1}/*"})
            answer = web.StreamResponse()
            answer.content_length = len(DATA)
            await answer.prepare(request)
            await answer.write(DATA[:1000])
            assert request.transport is not None
            request.transport.close()
            return answer

        registry.on("GET", BLOB_PATH, shifted)
        with pytest.raises(Unreachable, match="another range"):
            await all_of(source)

    play(case)


def test_a_registry_that_is_down_for_a_moment_is_asked_again() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        tries = 0

        async def busy(_: web.Request) -> web.StreamResponse:
            nonlocal tries
            tries += 1
            return web.Response(status=503) if tries < 3 else web.Response(body=DATA)

        registry.on("GET", BLOB_PATH, busy)
        assert await all_of(source) == DATA
        registry.on("GET", BLOB_PATH, web.Response(status=500))
        with pytest.raises(Unavailable, match="answered 500 for blob"):
            await all_of(source)

    play(case)


def test_more_bytes_than_announced_are_refused_at_once() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        sent = 0

        async def endless(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            answer = web.StreamResponse()
            await answer.prepare(request)
            while sent < 1 << 30:
                await answer.write(bytes(100_000))
                sent += 100_000
            return answer

        registry.on("GET", BLOB_PATH, endless)
        with pytest.raises(SizeMismatch, match="sends more than the announced"):
            await all_of(source)
        assert sent < 64 << 20

    play(case)


def test_fewer_bytes_than_announced_are_refused() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        registry.on("GET", BLOB_PATH, web.Response(body=DATA[:-1]))
        with pytest.raises(Unavailable, match="unexpected EOF"):
            await all_of(source)

    play(case)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_other_bytes_than_asked_for_are_refused(algorithm: str) -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        digest = Digest(f"{algorithm}:{hashlib.new(algorithm, DATA).hexdigest()}")
        blob = Descriptor("application/octet-stream", digest, len(DATA))
        registry.on("GET", f"/v2/a/b/blobs/{digest}", web.Response(body=DATA[::-1]))
        with pytest.raises(DigestMismatch):
            await source.small_blob(blob, limit_bytes=1 << 20)
        registry.on("GET", f"/v2/a/b/blobs/{digest}", web.Response(body=DATA))
        assert await source.small_blob(blob, limit_bytes=1 << 20) == DATA

    play(case)


def test_a_config_that_is_too_large_is_not_even_asked_for() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        with pytest.raises(Unavailable, match="the limit is 100"):
            await source.small_blob(BLOB, limit_bytes=100)
        assert registry.requests == []

    play(case)


def test_a_manifest_that_never_ends_is_given_up() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        async def endless(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse()
            await answer.prepare(request)
            for _ in range(10_000):
                await answer.write(b" " * 100_000)
            return answer

        registry.on("GET", "/v2/a/b/manifests/latest", endless)
        with pytest.raises(Unavailable, match="sends more than 4194304 bytes"):
            await source.manifest("latest", "manifest for b")

    play(case)


def test_an_unasked_encoding_is_refused() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        registry.on("GET", BLOB_PATH, web.Response(body=DATA, headers={"Content-Encoding": "gzip"}))
        with pytest.raises(Unavailable, match="encoding 'gzip', unasked"):
            await all_of(source)
        assert registry.sent("Accept-Encoding") == ["identity"] * len(registry.requests)

    play(case)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, "UNAUTHORIZED", Unauthenticated, "pull access denied for .*/a/b.* unauthorized: told"),
        (403, "DENIED", PermissionDenied, "pull access denied for .*/a/b: denied: told"),
        (404, "MANIFEST_UNKNOWN", NotFound, "manifest for x not found: manifest unknown: told"),
        (404, "NAME_UNKNOWN", NotFound, "repository .*/a/b not found: name unknown: told"),
        (
            429,
            "TOOMANYREQUESTS",
            Unavailable,
            "toomanyrequests: registry .* refuses for now: told; it says to wait 30 s",
        ),
        (500, "UNKNOWN", Unavailable, "answered 500 for manifest for x: told"),
        (418, "UNKNOWN", LaminaError, "answered 418 for manifest for x: told"),
    ],
)
def test_each_refusal_has_its_own_message(status: int, body: str, kind: type[LaminaError], words: str) -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        refusal = web.json_response({"errors": [{"code": body, "message": "told"}]}, status=status)
        refusal.headers["Retry-After"] = "30"
        registry.on("GET", "/v2/a/b/manifests/latest", refusal)
        with pytest.raises(kind, match=words):
            await source.manifest("latest", "manifest for x")

    play(case)


def test_a_refusal_without_a_body_has_a_message_too() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        registry.on("GET", "/v2/a/b/manifests/latest", web.Response(status=404, body=b"<html>"))
        with pytest.raises(NotFound, match=r"^manifest for x not found: manifest unknown$"):
            await source.manifest("latest", "manifest for x")

    play(case)


def test_a_registry_that_is_down_is_named() -> None:
    async def run() -> None:
        async with client() as registries:
            port = free_port()
            source = await repository(registries, f"127.0.0.1:{port}/a/b")
            with pytest.raises(Unavailable, match=f"cannot reach registry 127.0.0.1:{port}: connection refused"):
                await source.manifest("latest", "manifest for x")

    asyncio.run(run())


def test_an_unknown_host_is_named() -> None:
    async def run() -> None:
        async with client() as registries:
            source = await repository(registries, "no-such-registry.invalid/a")
            with pytest.raises(Unavailable, match=r"cannot reach registry no-such-registry\.invalid: no such host"):
                await source.manifest("latest", "manifest for x")

    asyncio.run(run())


@pytest.mark.parametrize("host", ["no-such-registry.invalid", "127.0.0.1:1"])
def test_what_will_not_change_is_not_tried_again(host: str) -> None:
    async def pause(_: float) -> None:
        raise AssertionError("there is nothing to wait for")

    async def run() -> None:
        workers = Workers(threads=2)
        registries = Registries(RegistryConfig(certs_dirs=()), workers, retry=Retry(sleep=pause))
        source = await repository(registries, f"{host}/a")
        with pytest.raises(Unavailable, match="cannot reach"):
            await source.manifest("latest", "manifest for x")
        await registries.aclose()
        workers.close()

    asyncio.run(run())


def test_a_registry_that_stays_away_is_tried_as_often_as_said() -> None:
    async def run() -> None:
        pauses: list[float] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds)

        async with hostile() as registry:
            registry.on("GET", "/v2/", web.Response(status=503))
            workers = Workers(threads=2)
            registries = Registries(RegistryConfig(certs_dirs=()), workers, retry=Retry(sleep=pause))
            with pytest.raises(Unavailable, match="answered 503"):
                await (await repository(registries, f"127.0.0.1:{registry.port}/a")).manifest("1", "manifest for x")
            assert pauses == [0.25, 0.5, 1.0, 2.0]
            await registries.aclose()
            workers.close()

    asyncio.run(run())


# credentials


def _basic(registry: Hostile) -> None:
    async def guarded(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") == "Basic bWU6c2VjcmV0":
            return web.Response(body=DATA if "blobs" in request.path else b"{}")
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})

    registry.on("GET", "/v2/", guarded)
    registry.on("GET", BLOB_PATH, guarded)


def test_basic_credentials_are_sent_when_asked_for() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        _basic(registry)
        assert await all_of(source) == DATA

    play(case, ME)


def test_credentials_are_not_sent_unasked() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        registry.on("GET", BLOB_PATH, web.Response(body=DATA))
        assert await all_of(source) == DATA
        assert registry.sent("Authorization") == []

    play(case, ME)


def test_wrong_credentials_are_told_apart_from_none() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        _basic(registry)
        with pytest.raises(Unauthenticated, match="unauthorized: the registry refused the given credentials"):
            await all_of(source)

    async def anonymous(registry: Hostile, source: Repository) -> None:
        _basic(registry)
        with pytest.raises(Unauthenticated, match="unauthorized: authentication required"):
            await all_of(source)

    play(case, RegistryAuth("me", "wrong"))
    play(anonymous)


def test_credentials_stay_behind_when_a_redirect_leads_away() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        _basic(registry)
        async with hostile() as elsewhere:
            elsewhere.on("GET", "/stored", web.Response(body=DATA))

            async def redirecting(request: web.Request) -> web.StreamResponse:
                assert request.headers["Authorization"].startswith("Basic")
                return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{elsewhere.port}/stored"})

            registry.on("GET", BLOB_PATH, redirecting)
            assert await all_of(source) == DATA
            assert [request.path for request in elsewhere.requests] == ["/stored"]
            assert elsewhere.sent("Authorization") == []

    play(case, ME)


def test_a_401_from_where_a_redirect_leads_asks_for_no_credentials() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        _basic(registry)
        async with hostile() as elsewhere:
            challenge = {"WWW-Authenticate": f'Bearer realm="http://127.0.0.1:{elsewhere.port}/token"'}
            elsewhere.on("GET", "/stored", web.Response(status=401, headers=challenge))
            location = {"Location": f"http://127.0.0.1:{elsewhere.port}/stored"}
            registry.on("GET", BLOB_PATH, web.Response(status=307, headers=location))
            with pytest.raises(Unauthenticated):
                await all_of(source)
            assert [request.path for request in elsewhere.requests] == ["/stored"]
            assert elsewhere.sent("Authorization") == []

    play(case, ME)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_not_followed(target: str) -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        registry.on("GET", BLOB_PATH, web.Response(status=302, headers={"Location": target}))
        with pytest.raises(LaminaError, match=r"not followed|no URL"):
            await all_of(source)

    play(case)


def test_redirects_in_circles_end() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        registry.on("GET", BLOB_PATH, web.Response(status=302, headers={"Location": BLOB_PATH}))
        with pytest.raises(Unavailable, match="redirects in circles"):
            await all_of(source)

    play(case)


def _bearer(registry: Hostile, realm: str) -> None:
    async def guarded(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") == "Bearer t0ken":
            return web.Response(body=DATA)
        challenge = f'Bearer realm="{realm}",service="the registry",scope="repository:other:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    registry.on("GET", "/v2/", guarded)
    registry.on("GET", BLOB_PATH, guarded)


@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        (None, {"scope": "repository:a/b:pull", "service": "the registry"}),
        (ME, {"scope": "repository:a/b:pull", "service": "the registry", "account": "me"}),
    ],
)
def test_a_bearer_token_is_fetched_and_used(auth: RegistryAuth | None, sent: dict[str, str]) -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        async with hostile() as tokens:
            tokens.on("GET", "/token", web.json_response({"access_token": "t0ken"}))
            _bearer(registry, f"http://127.0.0.1:{tokens.port}/token")
            assert await all_of(source) == DATA
            [request] = tokens.requests
            assert dict(request.query) == sent
            assert tokens.sent("Authorization") == (["Basic bWU6c2VjcmV0"] if auth else [])

    play(case, auth)


def test_an_identity_token_is_exchanged() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        forms: list[dict[str, str]] = []

        async def token(request: web.Request) -> web.StreamResponse:
            forms.append({name: str(value) for name, value in (await request.post()).items()})
            return web.json_response({"access_token": "t0ken"})

        registry.on("POST", "/token", token)
        _bearer(registry, f"http://127.0.0.1:{registry.port}/token")
        assert await all_of(source) == DATA
        [form] = forms
        assert form["grant_type"] == "refresh_token"
        assert form["refresh_token"] == "an identity"
        assert form["scope"] == "repository:a/b:pull"

    play(case, RegistryAuth(identity_token="an identity"))


def test_a_token_that_ran_out_is_fetched_again() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        given: list[str] = []

        async def token(_: web.Request) -> web.StreamResponse:
            given.append(f"token{len(given)}")
            return web.json_response({"token": given[-1]})

        async def once_each(request: web.Request) -> web.StreamResponse:
            if given and request.headers.get("Authorization") == f"Bearer {given[-1]}" and len(given) % 2 == 0:
                return web.Response(body=DATA)
            challenge = f'Bearer realm="http://127.0.0.1:{registry.port}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})

        registry.on("GET", "/token", token)
        registry.on("GET", "/v2/", once_each)
        registry.on("GET", BLOB_PATH, once_each)
        assert await all_of(source) == DATA
        assert given == ["token0", "token1"]

    play(case)


@pytest.mark.parametrize(
    "realm", ["http://127.0.0.2:{port}/token", "http://localhost:{port}/token", "http://evil.example/"]
)
def test_nothing_is_sent_to_a_realm_at_another_host(realm: str) -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        _bearer(registry, realm.format(port=registry.port))
        with pytest.raises(PermissionDenied, match=r"wants tokens fetched from another host.*: nothing was sent"):
            await all_of(source)
        assert [request.path for request in registry.requests] == ["/v2/"]
        assert registry.sent("Authorization") == []

    play(case, ME)


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"token": 3}', b'{"token": "a b"}', b'{"token": "\xc3\xa4"}'])
def test_a_token_server_that_answers_nonsense_is_refused(answer: bytes) -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        registry.on("GET", "/token", web.Response(body=answer))
        _bearer(registry, f"http://127.0.0.1:{registry.port}/token")
        with pytest.raises(Unauthenticated):
            await all_of(source)

    play(case)


def test_a_token_server_is_not_followed_elsewhere() -> None:
    async def case(registry: Hostile, source: Repository) -> None:
        async with hostile() as elsewhere:
            elsewhere.on("GET", "/token", web.json_response({"token": "t0ken"}))
            location = {"Location": f"http://127.0.0.1:{elsewhere.port}/token"}
            registry.on("GET", "/token", web.Response(status=302, headers=location))
            _bearer(registry, f"http://127.0.0.1:{registry.port}/token")
            with pytest.raises(Unauthenticated, match="refused with status 302"):
                await all_of(source)
            assert elsewhere.requests == []

    play(case, ME)


def test_an_upload_is_not_sent_to_another_host() -> None:
    async def run() -> None:
        async with hostile() as registry, hostile() as elsewhere, client() as registries:
            from tests.fakes.registries import reference

            target = await registries.push_to(reference(f"127.0.0.1:{registry.port}/a/b"), ME)
            location = {"Location": f"http://127.0.0.1:{elsewhere.port}/v2/a/b/blobs/uploads/1"}
            registry.on("POST", "/v2/a/b/blobs/uploads/", web.Response(status=202, headers=location))

            async def body():  # type: ignore[no-untyped-def]
                yield DATA

            with pytest.raises(LaminaError, match="wants uploads sent to"):
                await target.upload(BLOB.digest, BLOB.size_bytes, body)
            assert elsewhere.requests == []

    asyncio.run(run())
