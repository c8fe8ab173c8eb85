"""What an archive says it holds: Docker's `manifest.json`, or an OCI layout's `index.json` (pure rules, no files).

Both name a config and a stack of layers per image by names inside the archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lamina.errors import InvalidArgument, InvalidManifest, InvalidReference, UnsafeArchive
from lamina.images.archive_names import clean_name
from lamina.jsonvalue import objects, parse_object, strings, text
from lamina.oci.config import ImageConfig, decode_config
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, ImageId, algorithm_of, digest_of, hex_of, parse_digest
from lamina.oci.manifest import Index, Manifest, decode_manifest
from lamina.oci.reference import Reference, parse_reference

MAX_IMAGES = 1000
MAX_NAMES = 10_000
_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_MAX_NESTING = 4
_MAX_DOCUMENTS = 2000


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive: its config, the names of its layers (lowest first), and how it is to be called.

    `parent` is the image it was made from, when the archive says so.
    """

    config: ImageConfig
    layer_names: tuple[str, ...]
    references: tuple[Reference, ...]
    parent: ImageId | None = None


def archived_images(documents: Mapping[str, bytes]) -> list[ArchivedImage]:
    """The images of an archive, from its small files by name.

    Raises:
        InvalidManifest: neither form is there, or what is there breaks a rule.
        InvalidReference: a name that an image is to get is none.
        UnsafeArchive: a name that leaves the archive.
    """
    if "manifest.json" in documents:
        found = _docker_images(documents)
    elif "index.json" in documents:
        found = _OciLayout(documents).images()
    else:
        raise InvalidManifest(
            "this is no image archive: it has neither manifest.json nor index.json",
            hint="`docker import` takes the tar of a file system",
        )
    for image in found:
        if len(image.layer_names) != len(image.config.diff_ids):
            raise InvalidManifest(
                f"invalid manifest, layers length mismatch: expected {len(image.config.diff_ids)}, "
                f"got {len(image.layer_names)}",
            )
    return found


def _docker_images(documents: Mapping[str, bytes]) -> list[ArchivedImage]:
    try:
        # The file is a list; wrapped into an object it is read with the same rules as all JSON.
        wrapped = b'{"images":' + documents["manifest.json"] + b"}"
        rows = objects(parse_object(wrapped, what="manifest.json"), "images")
        if len(rows) > MAX_IMAGES:
            raise InvalidManifest(f"manifest.json names {len(rows)} images, the limit is {MAX_IMAGES}")
        found = []
        configs: dict[str, ImageConfig] = {}
        names = 0
        for row in rows:
            parent = text(row, "Parent")
            names += len(strings(row, "RepoTags"))
            if names > MAX_NAMES:
                raise InvalidManifest(f"manifest.json gives out more than {MAX_NAMES} names")
            found.append(
                ArchivedImage(
                    config=_config(documents, text(row, "Config"), configs),
                    layer_names=tuple(clean_name(name) for name in strings(row, "Layers")),
                    references=tuple(_tagged(name) for name in strings(row, "RepoTags")),
                    parent=ImageId(parse_digest(parent)) if parent else None,
                ),
            )
    except (InvalidManifest, UnsafeArchive, InvalidReference):
        raise
    except InvalidArgument as error:
        raise InvalidManifest(f"invalid manifest.json: {error}") from error
    return found


def _config(documents: Mapping[str, bytes], name: str, known: dict[str, ImageConfig]) -> ImageConfig:
    # Decoded once: a thousand rows that name one large config must not cost a thousand times its memory.
    clean = clean_name(name)
    if clean not in known:
        raw = documents.get(clean)
        if raw is None:
            raise InvalidManifest(f"invalid manifest.json: the config {name[:200]!r} is not in the archive")
        known[clean] = decode_config(raw)
    return known[clean]


def _tagged(name: str) -> Reference:
    reference = parse_reference(name)
    if reference.tag is None or reference.digest is not None:
        raise InvalidReference(f"invalid tag {name[:200]!r}", hint="the archive names an image without a tag")
    return reference


class _OciLayout:
    """An OCI image layout: an index of manifests, everything else a blob by digest."""

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self._documents = documents
        self._seen = 0
        self._configs: dict[Digest, ImageConfig] = {}

    def images(self) -> list[ArchivedImage]:
        layout = parse_object(self._documents.get("oci-layout", b"{}"), what="oci-layout", max_bytes=4096)
        version = text(layout, "imageLayoutVersion")
        if version != "1.0.0":
            raise InvalidManifest(f"invalid OCI layout: unknown imageLayoutVersion {version[:50]!r}")
        index = decode_manifest(self._documents["index.json"])
        if not isinstance(index, Index):
            raise InvalidManifest("invalid OCI layout: index.json is no index")
        found: dict[ImageId, ArchivedImage] = {}
        for descriptor in index.manifests:
            for image in self._below(descriptor, _names(descriptor), 0):
                before = found.get(image.config.image_id)
                names = (*before.references, *image.references) if before else image.references
                found[image.config.image_id] = ArchivedImage(
                    image.config,
                    image.layer_names,
                    tuple(dict.fromkeys(names)),
                )
        return list(found.values())

    def _below(self, descriptor: Descriptor, names: tuple[Reference, ...], depth: int) -> list[ArchivedImage]:
        self._seen += 1
        if depth > _MAX_NESTING or self._seen > _MAX_DOCUMENTS:
            raise InvalidManifest("invalid OCI layout: indexes within indexes without end")
        raw = self._blob(descriptor)
        if raw is None:
            return []  # an index may name platforms whose blobs were not saved
        document = decode_manifest(raw, descriptor.media_type)
        if isinstance(document, Index):
            found: list[ArchivedImage] = []
            for below in document.manifests:
                if below.platform is not None and below.platform.os == "unknown":
                    continue  # attestations: not images
                # One tag cannot mean several platforms here: the first gets it.
                found += self._below(below, () if found else names, depth + 1)
            return found
        return [self._image(document, names)]

    def _image(self, manifest: Manifest, names: tuple[Reference, ...]) -> ArchivedImage:
        digest = manifest.config.digest
        if digest not in self._configs:
            raw = self._blob(manifest.config)
            if raw is None:
                raise InvalidManifest(f"invalid OCI layout: the config {digest} is not in the archive")
            self._configs[digest] = decode_config(raw)
        return ArchivedImage(
            config=self._configs[digest],
            layer_names=tuple(blob_name(layer.digest) for layer in manifest.layers),
            references=names,
        )

    def _blob(self, descriptor: Descriptor) -> bytes | None:
        raw = self._documents.get(blob_name(descriptor.digest))
        if raw is None:
            return None
        if algorithm_of(descriptor.digest) != "sha256":
            raise InvalidManifest(f"invalid OCI layout: {descriptor.digest} is not a sha256 digest")
        if digest_of(raw) != descriptor.digest or len(raw) != descriptor.size_bytes:
            raise InvalidManifest(
                f"invalid OCI layout: the blob {descriptor.digest} has other bytes than its descriptor"
            )
        return raw


def blob_name(digest: Digest) -> str:
    """Where an OCI layout keeps a blob."""
    return f"blobs/{algorithm_of(digest)}/{hex_of(digest)}"


def _names(descriptor: Descriptor) -> tuple[Reference, ...]:
    for key in (_NAME, _REF_NAME):
        written = descriptor.annotations.get(key, "")
        if not written:
            continue
        reference = parse_reference(written)
        # A bare ref.name such as "7" is a tag of a name that the layout does not tell.
        if key == _REF_NAME and reference.tag is None:
            continue
        return (reference.with_default_tag(),)
    return ()
