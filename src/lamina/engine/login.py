"""Try credentials at a registry; keep none (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.distribution.registries import Registries
from lamina.errors import InvalidArgument, Unauthenticated
from lamina.jsonvalue import JsonObject
from lamina.wire.engine.auth import RegistryAuth


@dataclass(frozen=True, slots=True)
class LogIn:
    """`docker login`: the client keeps the credentials, the engine says whether they are good."""

    registries: Registries

    async def __call__(self, auth: RegistryAuth) -> JsonObject:
        """Raises InvalidArgument (no credentials), Unauthenticated, PermissionDenied, Unavailable."""
        if auth.is_empty:
            raise InvalidArgument("no credentials were given", hint="give a username and a password")
        door = await self.registries.door_of(auth)
        try:
            await door.check_access()
        except Unauthenticated as error:
            who = repr(auth.username[:200])
            refused = f"registry {door.endpoint.host} refuses the login of {who}"
            words = f"{refused}: unauthorized: incorrect username or password"
            raise Unauthenticated(words) from error
        return {"Status": "Login Succeeded", "IdentityToken": ""}
