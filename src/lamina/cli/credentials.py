"""Who we are to a registry: the logins that docker keeps in its config.json (blocking)."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

from lamina.errors import InvalidArgument
from lamina.oci.reference import Reference

_HUB = "https://index.docker.io/v1/"


def registry_auth(reference: Reference, environment: Mapping[str, str]) -> str:
    """The `X-Registry-Auth` header for the registry of an image; an empty object when there is no login.

    Raises:
        InvalidArgument: the file is there and cannot be understood.
    """
    home = environment.get("DOCKER_CONFIG") or os.path.join(environment.get("HOME", "/root"), ".docker")
    path = Path(home) / "config.json"
    try:
        logins = json.loads(path.read_bytes()).get("auths") or {}
        entry = logins.get(_HUB if reference.domain == "docker.io" else reference.domain) or {}
        name, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except OSError:
        return _encoded({})
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidArgument(
            f"cannot understand {path}: {error}", hint="log in again, or set DOCKER_CONFIG"
        ) from error
    if token := entry.get("identitytoken"):
        return _encoded({"username": name, "identitytoken": token, "serveraddress": reference.domain})
    return _encoded({"username": name, "password": password, "serveraddress": reference.domain} if name else {})


def _encoded(value: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
