"""The archive that `save` writes: Docker's combined layout, readable as docker-archive and as OCI layout (pure).

What says what the archive holds comes first, so that a reader of the stream knows it before the layers come; then each
layer once, named by its diff id, as its plain tar. No time of day gets in: the same images give the same bytes.
Source: moby image/tarexport/save.go (25 and later), image-spec image-layout.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamina.errors import Unsupported
from lamina.images.archive_index import blob_name
from lamina.images.archive_names import BLOCK
from lamina.jsonvalue import JsonObject, JsonValue, go_json
from lamina.oci import mediatype
from lamina.oci.config import ImageConfig
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import ChainId, DiffId, Digest, ImageId, digest_of, hex_of
from lamina.oci.manifest import encode_manifest
from lamina.oci.reference import Reference

CLOSING = bytes(2 * BLOCK)
_MAX_OCTAL = 0o77777777777


@dataclass(frozen=True, slots=True)
class SavedImage:
    """One image to write: its config and the tags it is to have."""

    config: ImageConfig
    references: tuple[Reference, ...]
    parent: ImageId | None = None


@dataclass(frozen=True, slots=True)
class SavedLayer:
    """One layer to write: where its bytes come from, and the entry's name."""

    chain_id: ChainId
    diff_id: DiffId
    size_bytes: int
    name: str

    def header(self) -> bytes:
        return file_header(self.name, self.size_bytes)

    def padding(self) -> bytes:
        return bytes(-self.size_bytes % BLOCK)


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """Everything before the layers (`head`, whole tar entries), then the layers, then `CLOSING`."""

    head: bytes
    layers: tuple[SavedLayer, ...]

    @property
    def size_bytes(self) -> int:
        """Of the whole archive."""
        bodies = sum(BLOCK + layer.size_bytes + len(layer.padding()) for layer in self.layers)
        return len(self.head) + bodies + len(CLOSING)


def needed_layers(images: Sequence[SavedImage]) -> dict[DiffId, ChainId]:
    """Each layer that the archive holds, once, with a chain that it can be read from."""
    found: dict[DiffId, ChainId] = {}
    for image in images:
        for diff_id, chain_id in zip(image.config.diff_ids, image.config.chain_ids, strict=True):
            found.setdefault(diff_id, chain_id)
    return found


def plan_archive(images: Sequence[SavedImage], sizes: Mapping[DiffId, int]) -> ArchivePlan:
    """Lay out the archive of these images; `sizes` are the lengths of the layers' plain tars."""
    documents: dict[str, bytes] = {}
    index: list[JsonValue] = []
    rows: list[JsonValue] = []
    present = {image.config.image_id for image in images}
    for image in images:
        config = image.config
        documents[blob_name(config.image_id)] = config.raw
        raw = _manifest(config, sizes)
        documents[blob_name(digest_of(raw))] = raw
        index += _index_rows(image, raw)
        rows.append(_docker_row(image, sizes, present))
    documents = dict(sorted(documents.items()))
    documents["index.json"] = go_json(
        {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": index},
    )
    documents["manifest.json"] = go_json(rows) + b"\n"
    documents["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    repositories = _repositories(images)
    if repositories:
        documents["repositories"] = go_json(repositories) + b"\n"
    head = directory_header("blobs/") + directory_header("blobs/sha256/")
    for name, body in documents.items():
        head += file_header(name, len(body)) + body + bytes(-len(body) % BLOCK)
    layers = tuple(
        SavedLayer(chain_id, diff_id, sizes[diff_id], blob_name(diff_id))
        for diff_id, chain_id in needed_layers(images).items()
    )
    return ArchivePlan(head, layers)


def _manifest(config: ImageConfig, sizes: Mapping[DiffId, int]) -> bytes:
    return encode_manifest(
        Descriptor(mediatype.OCI_CONFIG, Digest(config.image_id), len(config.raw)),
        [Descriptor(mediatype.OCI_LAYER, Digest(diff_id), sizes[diff_id]) for diff_id in config.diff_ids],
        media_type=mediatype.OCI_MANIFEST,
    )


def _index_rows(image: SavedImage, raw: bytes) -> list[JsonValue]:
    plain = Descriptor(mediatype.OCI_MANIFEST, digest_of(raw), len(raw))
    if not image.references:
        return [plain.as_json()]
    rows: list[JsonValue] = []
    for reference in image.references:
        row = plain.as_json()
        row["annotations"] = {
            "io.containerd.image.name": str(reference),
            "org.opencontainers.image.ref.name": reference.tag or "",
        }
        rows.append(row)
    return rows


def _docker_row(image: SavedImage, sizes: Mapping[DiffId, int], present: set[ImageId]) -> JsonObject:
    config = image.config
    row: JsonObject = {
        "Config": blob_name(config.image_id),
        "RepoTags": [reference.familiar() for reference in image.references] or None,
        "Layers": [blob_name(diff_id) for diff_id in config.diff_ids],
    }
    if image.parent in present:
        row["Parent"] = str(image.parent)
    if config.diff_ids:
        row["LayerSources"] = {
            str(diff_id): Descriptor(mediatype.OCI_LAYER, Digest(diff_id), sizes[diff_id]).as_json()
            for diff_id in sorted(config.diff_ids)
        }
    return row


def _repositories(images: Sequence[SavedImage]) -> JsonObject:
    found: dict[str, dict[str, str]] = {}
    for image in images:
        if not image.config.diff_ids:
            continue
        for reference in image.references:
            tags = found.setdefault(reference.familiar_name, {})
            tags[reference.tag or ""] = hex_of(image.config.diff_ids[-1])
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def file_header(name: str, size_bytes: int) -> bytes:
    """The tar header of a regular file, 0644, owned by root, from the epoch."""
    return _header(name, size_bytes, kind=b"0", mode=0o644)


def directory_header(name: str) -> bytes:
    """The tar header of a directory, 0755."""
    return _header(name, 0, kind=b"5", mode=0o755)


def _header(name: str, size_bytes: int, *, kind: bytes, mode: int) -> bytes:
    encoded = name.encode()
    if len(encoded) > 100:
        raise Unsupported(f"the name {name!r} does not fit a tar header")
    block = bytearray(BLOCK)
    block[0 : len(encoded)] = encoded
    block[100:108] = b"%07o\0" % mode
    block[108:116] = block[116:124] = b"0000000\0"
    # Above 8 GiB: base 256, which GNU tar, Go and libarchive read.
    block[124:136] = b"%011o\0" % size_bytes if size_bytes <= _MAX_OCTAL else b"\x80" + size_bytes.to_bytes(11, "big")
    block[136:148] = b"%011o\0" % 0
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
