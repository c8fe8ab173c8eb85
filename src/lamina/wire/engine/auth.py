"""`X-Registry-Auth`: the credentials that a client sends along with a pull or push (pure).

Source: Engine API "Authentication": URL-safe base64 of a JSON object, with or without padding.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, parse_object, text

MAX_HEADER_CHARS = 64 << 10


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Credentials for one registry. Secrets never show in `repr`, so that no log or traceback tells them.

    `identity_token` is exchanged for access tokens; `registry_token` is an access token. `server_address` is the
    registry the client means; empty when it did not say.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    server_address: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.username or self.password or self.identity_token or self.registry_token)


def decode(header: str) -> RegistryAuth | None:
    """The credentials in the header; None when there are none.

    Raises:
        InvalidArgument: the header is no such value. The message does not repeat it: it may hold a secret.
    """
    if not header.strip():
        return None
    if len(header) > MAX_HEADER_CHARS:
        raise InvalidArgument("the X-Registry-Auth header is too long")
    compact = header.strip().replace("-", "+").replace("_", "/").rstrip("=")
    try:
        raw = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument("the X-Registry-Auth header is not base64") from error
    if raw.strip() in (b"", b"null"):
        return None
    try:
        fields = parse_object(raw, what="X-Registry-Auth", max_bytes=MAX_HEADER_CHARS)
    except InvalidArgument:
        raise InvalidArgument("the X-Registry-Auth header holds no JSON object") from None
    found = of_object(fields)
    return None if found.is_empty else found


def of_object(fields: JsonObject) -> RegistryAuth:
    """The credentials in Docker's `AuthConfig`. Raises InvalidArgument."""
    username, password = text(fields, "username"), text(fields, "password")
    if not username and text(fields, "auth"):
        username, password = _split(text(fields, "auth"))
    return RegistryAuth(
        username=username,
        password=password,
        identity_token=text(fields, "identitytoken"),
        registry_token=text(fields, "registrytoken"),
        server_address=text(fields, "serveraddress"),
    )


def _split(auth: str) -> tuple[str, str]:
    """`auth` is base64 of `user:password`, as in the client's own file."""
    try:
        username, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except ValueError as error:
        raise InvalidArgument("the X-Registry-Auth header has an auth that is not base64") from error
    return username, password.rstrip("\0")
