"""Manifests and indexes; decoding keeps the raw bytes, because their digest is the identity (pure).

Source: image-spec manifest.md, image-index.md; Docker's schema 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from lamina.errors import InvalidArgument, InvalidManifest, Unsupported
from lamina.jsonvalue import JsonObject, JsonValue, go_json, integer, mapping, objects, parse_object, string_map, text
from lamina.oci import mediatype
from lamina.oci.descriptor import Descriptor, decode_descriptor
from lamina.oci.digest import Digest, digest_of

MAX_MANIFEST_BYTES = 4 << 20
MAX_LAYERS = 1000
MAX_MANIFESTS = 10_000


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image of one platform: its config and its layers, lowest first."""

    raw: bytes
    media_type: str
    digest: Digest
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests by platform, in the order of the document."""

    raw: bytes
    media_type: str
    digest: Digest
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""


Document: TypeAlias = Manifest | Index


def decode_manifest(raw: bytes, media_type: str = "") -> Document:
    """Read a manifest or an index from untrusted bytes.

    `media_type` is what the sender said they are (a Content-Type, a descriptor's type); "" when nothing was said.

    Raises:
        InvalidManifest: too large, not JSON, both a manifest and an index, another type inside than announced, too many
            layers, or a descriptor that breaks a rule.
        Unsupported: a schema 1 manifest.
    """
    try:
        return _decode(raw, mediatype.bare(media_type))
    except InvalidManifest:
        raise
    except InvalidArgument as error:
        raise InvalidManifest(f"invalid manifest: {error}") from error


def _decode(raw: bytes, announced: str) -> Document:
    if announced in mediatype.SCHEMA1:
        raise _schema1()
    document = parse_object(raw, what="manifest", max_bytes=MAX_MANIFEST_BYTES)
    version = integer(document, "schemaVersion", 2)
    if version == 1:
        raise _schema1()
    if version != 2:
        raise InvalidManifest(f"invalid manifest: unknown schemaVersion {version}")
    media_type = _media_type(document, announced)
    if media_type in mediatype.INDEXES:
        return _index(raw, document, media_type)
    return _manifest(raw, document, media_type)


def _schema1() -> Unsupported:
    return Unsupported(
        "Docker image manifest version 2, schema 1 is not supported",
        hint="push the image again with a present-day client",
    )


def _media_type(document: JsonObject, announced: str) -> str:
    # The same bytes must not be an image to one reader and an index to another (CVE-2021-41190).
    looks_like_index = "manifests" in document
    looks_like_manifest = "config" in document or "layers" in document or "blobs" in document
    if looks_like_index and looks_like_manifest:
        raise InvalidManifest("invalid manifest: it is both an image manifest and an index")
    if "fsLayers" in document:
        raise InvalidManifest("invalid manifest: it has fields of schema 1")
    if not looks_like_index and not looks_like_manifest:
        raise InvalidManifest("invalid manifest: neither an image manifest nor an index")
    written = text(document, "mediaType")
    known = mediatype.INDEXES | mediatype.MANIFESTS
    if announced and announced in known and written and written != announced:
        raise InvalidManifest(f"invalid manifest: announced as {announced}, but it says {written[:200]}")
    guess = mediatype.OCI_INDEX if looks_like_index else mediatype.OCI_MANIFEST
    found = written or (announced if announced in known else guess)
    expected = mediatype.INDEXES if looks_like_index else mediatype.MANIFESTS
    if found not in expected:
        what = "an index" if looks_like_index else "an image manifest"
        raise InvalidManifest(f"invalid manifest: it has the fields of {what}, but its type is {found[:200]}")
    return found


def _manifest(raw: bytes, document: JsonObject, media_type: str) -> Manifest:
    config = mapping(document, "config")
    if not config:
        raise InvalidManifest("invalid manifest: no config")
    layers = objects(document, "layers")
    if len(layers) > MAX_LAYERS:
        raise InvalidManifest(f"invalid manifest: {len(layers)} layers, the limit is {MAX_LAYERS}")
    return Manifest(
        raw=raw,
        media_type=media_type,
        digest=digest_of(raw),
        config=decode_descriptor(config),
        layers=tuple(decode_descriptor(layer) for layer in layers),
        annotations=string_map(document, "annotations"),
        subject=_subject(document),
        artifact_type=text(document, "artifactType"),
    )


def _index(raw: bytes, document: JsonObject, media_type: str) -> Index:
    manifests = objects(document, "manifests")
    if len(manifests) > MAX_MANIFESTS:
        raise InvalidManifest(f"invalid manifest: {len(manifests)} manifests, the limit is {MAX_MANIFESTS}")
    return Index(
        raw=raw,
        media_type=media_type,
        digest=digest_of(raw),
        manifests=tuple(decode_descriptor(manifest) for manifest in manifests),
        annotations=string_map(document, "annotations"),
        subject=_subject(document),
        artifact_type=text(document, "artifactType"),
    )


def _subject(document: JsonObject) -> Descriptor | None:
    subject = mapping(document, "subject")
    return decode_descriptor(subject) if subject else None


def encode_manifest(config: Descriptor, layers: Sequence[Descriptor], *, media_type: str) -> bytes:
    """The bytes of an image manifest in Go's key order."""
    found: JsonObject = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config.as_json(),
        "layers": _as_json(layers),
    }
    return go_json(found)


def encode_index(manifests: Sequence[Descriptor], *, media_type: str) -> bytes:
    """The bytes of an index in Go's key order."""
    found: JsonObject = {"schemaVersion": 2, "mediaType": media_type, "manifests": _as_json(manifests)}
    return go_json(found)


def _as_json(descriptors: Sequence[Descriptor]) -> list[JsonValue]:
    return [descriptor.as_json() for descriptor in descriptors]
