"""From a tag or digest to the one manifest of a platform (async)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from lamina.distribution.repository import Repository, Served
from lamina.errors import DigestMismatch, InvalidManifest, SizeMismatch, Unsupported
from lamina.oci import mediatype
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, algorithm_of
from lamina.oci.manifest import Document, Index, Manifest, decode_manifest
from lamina.oci.platform import Platform, choose
from lamina.oci.reference import Reference

MAX_NESTED_INDEXES = 3

_LAYERED = frozenset({*mediatype.IMAGE_CONFIGS, "", "application/octet-stream"})
"""Types of a config that makes the manifest an image; old pushers leave it out."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """`digest` is what the reference names: of the index if there is one. `manifest` is that of the platform."""

    digest: Digest
    manifest: Manifest


async def resolve(repository: Repository, reference: Reference, platform: Platform) -> Resolved:
    """The manifest of `reference` for `platform`, every digest on the way verified.

    Raises:
        InvalidManifest: what is served breaks a rule.
        DigestMismatch, SizeMismatch: what is served is not what was asked for.
        Unsupported: nothing for this platform, or no image at all.
        NotFound and others: as the registry says.
    """
    document = await served_document(repository, reference)
    digest = reference.digest or document.digest
    for _ in range(MAX_NESTED_INDEXES):
        if not isinstance(document, Index):
            return Resolved(digest, _image(document, reference))
        chosen = choose(document.manifests, platform)
        served = await repository.manifest(chosen.digest, f"manifest for {reference.familiar()} ({platform})")
        document = _chosen(served, chosen, repository)
    raise InvalidManifest(f"invalid manifest: more than {MAX_NESTED_INDEXES} indexes in one another")


async def served_document(repository: Repository, reference: Reference) -> Document:
    """What the reference names, verified when it is a digest. Raises as `resolve`."""
    wanted = str(reference.digest or reference.tag)
    served = await repository.manifest(wanted, f"manifest for {reference.familiar()}")
    if reference.digest is not None:
        _check_digest(served.raw, reference.digest, repository)
    return decode_manifest(served.raw, served.media_type)


def _chosen(served: Served, descriptor: Descriptor, repository: Repository) -> Document:
    if len(served.raw) != descriptor.size_bytes:
        raise SizeMismatch(
            f"manifest {descriptor.digest}: {descriptor.size_bytes} bytes announced, {len(served.raw)} received"
        )
    _check_digest(served.raw, descriptor.digest, repository)
    known = mediatype.INDEXES | mediatype.MANIFESTS
    told, promised = mediatype.bare(served.media_type), descriptor.media_type
    if told in known and promised in known and told != promised:
        raise InvalidManifest(f"invalid manifest: the index says {promised}, the registry {told}")
    return decode_manifest(served.raw, promised)


def _check_digest(raw: bytes, digest: Digest, repository: Repository) -> None:
    algorithm = algorithm_of(digest)
    actual = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
    if actual != digest:
        raise DigestMismatch(
            f"manifest verification failed: registry {repository.endpoint.host} sent {actual} "
            f"where {digest} was asked for"
        )


def _image(manifest: Manifest, reference: Reference) -> Manifest:
    if manifest.config.media_type not in _LAYERED:
        raise Unsupported(
            f"{reference.familiar()} is no image: its config is of type {manifest.config.media_type[:200]!r}"
        )
    for layer in manifest.layers:
        if not mediatype.is_layer(layer.media_type):
            raise Unsupported(f"{reference.familiar()} has a layer of the unknown type {layer.media_type[:200]!r}")
    return manifest
