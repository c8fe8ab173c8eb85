"""Where tokens may come from. (What is sent is tried in test_repository.)"""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from lamina.distribution.auth import Authorizer, TokenRequest
from lamina.errors import PermissionDenied, Unauthenticated
from lamina.wire.engine.auth import RegistryAuth
from lamina.wire.registry.challenge import Challenge


def ask(registry: str, realm: str) -> URL:
    """The URL that a token is asked at."""
    asked: list[URL] = []

    async def fetch(request: TokenRequest) -> bytes:
        asked.append(request.url)
        return b'{"token":"t"}'

    async def run() -> None:
        authorizer = Authorizer(URL(registry), RegistryAuth("me", "secret"), fetch)
        authorizer.challenged((Challenge("bearer", {"realm": realm, "service": "s"}),))
        assert await authorizer.authorization("scope") == "Bearer t"

    asyncio.run(run())
    return asked[0]


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token"),
        ("https://ghcr.example", "https://ghcr.example/token"),
        ("https://registry.gitlab.example", "https://gitlab.example/jwt/auth"),
        ("https://registry.example:5000", "https://registry.example:5001/auth"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token?x=y"),
        ("http://127.0.0.1:5000", "https://127.0.0.1/token"),
    ],
)
def test_a_realm_of_the_registry_is_asked(registry: str, realm: str) -> None:
    asked = ask(registry, realm)
    assert asked.host == URL(realm).host
    assert asked.query["scope"] == "scope"


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://registry.example", "https://evil.example/token"),
        ("https://registry.example", "https://xregistry.example/token"),
        ("https://registry.example", "https://registry.example.evil/token"),
        ("https://registry.example", "https://example.evil/"),
        ("https://registry.example", "https://registry.example@evil/"),
        ("https://registry.example", "http://registry.example/token"),
        ("https://evil.example", "https://auth.docker.io/token"),
        ("http://127.0.0.1:5000", "http://0.0.1/token"),
        ("http://127.0.0.1:5000", "http://169.254.169.254/latest/meta-data"),
        ("https://a.example", "file:///etc/passwd"),
        ("https://a.example", "/token"),
        ("https://a.example", ""),
    ],
)
def test_any_other_realm_is_not(registry: str, realm: str) -> None:
    with pytest.raises((PermissionDenied, Unauthenticated)):
        ask(registry, realm)


def test_a_registry_token_is_used_as_it_is() -> None:
    async def fetch(_: TokenRequest) -> bytes:
        raise AssertionError("no token is asked for")

    async def run() -> None:
        authorizer = Authorizer(URL("https://r.example"), RegistryAuth(registry_token="given"), fetch)
        assert await authorizer.authorization("scope") == "Bearer given"

    asyncio.run(run())
