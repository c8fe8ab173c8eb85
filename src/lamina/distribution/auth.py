"""Answering challenges: basic credentials and bearer tokens, sent to nobody but the registry they are for (async).

A registry names the place where tokens are made (`realm`). It could name any: so a token is only asked for at the
registry's own host, at a domain that the host is part of, or at a place that is known to belong to it. Elsewhere
nothing is sent, credentials or not: what came back would be handed to the registry.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from yarl import URL

from lamina.distribution.endpoints import address_of
from lamina.distribution.registry_config import as_address
from lamina.errors import InvalidArgument, PermissionDenied, Unauthenticated
from lamina.jsonvalue import parse_object, text
from lamina.wire.engine.auth import RegistryAuth
from lamina.wire.registry.challenge import Challenge

MAX_TOKEN_BYTES = 1 << 20
CLIENT_ID = "lamina"

_REALMS = {"registry-1.docker.io": frozenset({"auth.docker.io"})}
"""Places of tokens that are not at the registry's own host, by registry."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What is sent to a realm: a GET with basic credentials, or a POST of a form."""

    url: URL
    authorization: str | None = None
    form: Mapping[str, str] | None = None


class TokenSource(Protocol):
    """Carries a token request out; redirects are not followed."""

    async def __call__(self, request: TokenRequest) -> bytes:
        """The body of the answer. Raises LaminaError when it is a refusal."""


class Authorizer:
    """The `Authorization` headers for one registry, with one set of credentials."""

    def __init__(self, base: URL, auth: RegistryAuth | None, fetch: TokenSource) -> None:
        self._base = base
        self._auth = auth or RegistryAuth()
        self._fetch = fetch
        self._challenges: tuple[Challenge, ...] = ()
        self._tokens: dict[str, str] = {}
        self._lock = asyncio.Lock()

    @property
    def has_credentials(self) -> bool:
        return not self._auth.is_empty

    def challenged(self, challenges: tuple[Challenge, ...]) -> None:
        """The registry asks (again): tokens so far are no good."""
        self._challenges = challenges
        self._tokens.clear()

    async def authorization(self, scope: str) -> str | None:
        """The header for a request of `scope`; None when nothing is asked for, or nothing can be given.

        Raises:
            PermissionDenied: the realm is none where this registry's tokens may come from.
            Unauthenticated: the realm gives no token.
        """
        if self._auth.registry_token:
            return f"Bearer {self._auth.registry_token}"
        for challenge in self._challenges:
            if challenge.scheme == "bearer":
                return f"Bearer {await self._token(challenge, scope)}"
            if challenge.scheme == "basic" and self._auth.username:
                return self._basic()
        return None

    async def _token(self, challenge: Challenge, scope: str) -> str:
        async with self._lock:
            if scope not in self._tokens:
                request = self._token_request(challenge, scope)
                self._tokens[scope] = _read_token(await self._fetch(request), self._base)
            return self._tokens[scope]

    def _token_request(self, challenge: Challenge, scope: str) -> TokenRequest:
        realm = _realm(challenge.parameters.get("realm", ""), self._base)
        service = challenge.parameters.get("service", "")
        if self._auth.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": CLIENT_ID,
                "scope": scope,
                "refresh_token": self._auth.identity_token,
            }
            return TokenRequest(realm, form=form)
        query = {"scope": scope} if scope else {}
        if service:
            query["service"] = service
        if self._auth.username:
            query["account"] = self._auth.username
            return TokenRequest(realm.update_query(query), authorization=self._basic())
        return TokenRequest(realm.update_query(query))

    def _basic(self) -> str:
        pair = f"{self._auth.username}:{self._auth.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


def _realm(text: str, base: URL) -> URL:
    try:
        realm = URL(text)
    except ValueError as error:
        raise Unauthenticated(f"registry {address_of(base)} names a token server that is no URL") from error
    host, registry = (realm.host or "").lower(), (base.host or "").lower()
    if realm.scheme not in ("https", base.scheme) or realm.user is not None:
        raise PermissionDenied(
            f"registry {address_of(base)} wants tokens fetched from {text[:200]!r} without encryption: nothing was sent"
        )
    if not _belongs(host, registry):
        raise PermissionDenied(
            f"registry {address_of(base)} wants tokens fetched from another host, {host[:200]!r}: nothing was sent",
            hint="if that is right, log in with a registry token",
        )
    return realm


def _belongs(host: str, registry: str) -> bool:
    if not host:
        return False
    if host == registry or host in _REALMS.get(registry, ()):
        return True
    # A domain may speak for the hosts below it (registry.gitlab.com, gitlab.com), never the other way round.
    return "." in host and as_address(registry) is None and registry.endswith(f".{host}")


def _read_token(body: bytes, base: URL) -> str:
    try:
        answer = parse_object(body, what="token answer", max_bytes=MAX_TOKEN_BYTES)
        token = text(answer, "token") or text(answer, "access_token")
    except InvalidArgument as error:
        raise Unauthenticated(f"the token server of registry {address_of(base)} answers nonsense: {error}") from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Unauthenticated(f"the token server of registry {address_of(base)} gave no usable token")
    return token
