"""What the answers of the registry share (async edge)."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from lamina.registry.files import RegistryFiles
from lamina.registry.uploads import Uploads
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class RegistryState:
    """The files, and the door to them."""

    files: RegistryFiles
    uploads: Uploads
    workers: Workers


STATE: web.AppKey[RegistryState] = web.AppKey("lamina.registry.state", RegistryState)
