"""What a registry has under a name, without pulling it (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.distribution.registries import Registries
from lamina.distribution.repository import Repository
from lamina.distribution.resolve import served_document
from lamina.errors import Unavailable
from lamina.jsonvalue import JsonObject, JsonValue
from lamina.oci.config import decode_config
from lamina.oci.manifest import Index, Manifest
from lamina.oci.reference import Reference
from lamina.wire.engine.auth import RegistryAuth

_MAX_CONFIG_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class InspectDistribution:
    """`docker manifest`'s question: the descriptor of a reference, and its platforms."""

    registries: Registries

    async def __call__(self, reference: Reference, *, auth: RegistryAuth | None) -> JsonObject:
        """Raises NotFound, Unauthenticated, PermissionDenied, Unavailable, InvalidManifest."""
        failure: Unavailable | None = None
        for repository in await self.registries.pull_from(reference, auth):
            try:
                return await _look(repository, reference)
            except Unavailable as error:  # a mirror that is away: the next one
                failure = error
        assert failure is not None  # there is always the registry itself
        raise failure


async def _look(repository: Repository, reference: Reference) -> JsonObject:
    document = await served_document(repository, reference)
    descriptor: JsonObject = {
        "mediaType": document.media_type,
        "digest": str(document.digest),
        "size": len(document.raw),
    }
    platforms: list[JsonValue]
    if isinstance(document, Index):
        platforms = [one.platform.as_json() for one in document.manifests if one.platform is not None]
    else:
        platforms = [await _platform(repository, document)]
    return {"Descriptor": descriptor, "Platforms": platforms}


async def _platform(repository: Repository, manifest: Manifest) -> JsonObject:
    config = decode_config(await repository.small_blob(manifest.config, limit_bytes=_MAX_CONFIG_BYTES))
    found: JsonObject = {"architecture": config.architecture, "os": config.os}
    if config.variant:
        found["variant"] = config.variant
    return found
