"""Image configs: which layers, which history, which defaults to run with (pure).

The bytes are the identity and are never written anew. Source: image-spec config.md; moby image/image.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from lamina.errors import InvalidArgument, InvalidManifest
from lamina.jsonvalue import JsonObject, JsonValue, boolean, go_json, mapping, objects, parse_object, strings, text
from lamina.oci.digest import ChainId, DiffId, ImageId, chain_of, digest_of, parse_digest
from lamina.oci.platform import Platform

MAX_CONFIG_BYTES = 4 << 20
MAX_DIFF_IDS = 1000
MAX_HISTORY = 100_000


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """How one step of the image came to be; `empty_layer` steps have no diff id."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    def as_json(self) -> JsonObject:
        """In the key order of Go's struct, empty ones left out."""
        found: JsonObject = {}
        if self.created:
            found["created"] = self.created
        if self.author:
            found["author"] = self.author
        if self.created_by:
            found["created_by"] = self.created_by
        if self.comment:
            found["comment"] = self.comment
        if self.empty_layer:
            found["empty_layer"] = True
        return found


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A config as received (`raw`) and what it says.

    `run` is its `config`: Cmd, Env and the like, passed through as they are. `created` is "" when unknown.
    """

    raw: bytes
    image_id: ImageId
    architecture: str
    os: str
    variant: str
    created: str
    author: str
    run: JsonObject = field(hash=False)
    diff_ids: tuple[DiffId, ...]
    history: tuple[HistoryEntry, ...]
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    comment: str = ""
    docker_version: str = ""
    container: str = ""
    container_config: JsonObject = field(default_factory=dict, hash=False)

    @property
    def chain_ids(self) -> tuple[ChainId, ...]:
        """The chain ids of its layers, lowest first."""
        return _chain_of(self.diff_ids)

    @property
    def top(self) -> ChainId | None:
        """The chain id of the whole image; None for an image without layers."""
        return self.chain_ids[-1] if self.diff_ids else None

    @property
    def platform(self) -> Platform:
        return Platform(self.os, self.architecture, self.variant, self.os_version, self.os_features)


@lru_cache(maxsize=4096)
def _chain_of(diff_ids: tuple[DiffId, ...]) -> tuple[ChainId, ...]:
    # Lists of images ask for it again and again.
    return chain_of(diff_ids)


def image_id(raw: bytes) -> ImageId:
    """The identity of the image with these config bytes."""
    return ImageId(digest_of(raw))


def decode_config(raw: bytes) -> ImageConfig:
    """Read an image config from untrusted bytes.

    Raises:
        InvalidManifest: too large, not JSON, no rootfs, a bad diff id, or more history than layers.
    """
    try:
        return _decode(raw)
    except InvalidManifest:
        raise
    except InvalidArgument as error:
        raise InvalidManifest(f"invalid image config: {error}") from error


def _decode(raw: bytes) -> ImageConfig:
    document = parse_object(raw, what="image config", max_bytes=MAX_CONFIG_BYTES)
    diff_ids = _diff_ids(document)
    return ImageConfig(
        raw=raw,
        image_id=image_id(raw),
        architecture=text(document, "architecture"),
        os=text(document, "os") or "linux",
        variant=text(document, "variant"),
        created=text(document, "created"),
        author=text(document, "author"),
        run=mapping(document, "config"),
        diff_ids=diff_ids,
        history=_history(document, len(diff_ids)),
        os_version=text(document, "os.version"),
        os_features=tuple(strings(document, "os.features")),
        comment=text(document, "comment"),
        docker_version=text(document, "docker_version"),
        container=text(document, "container"),
        container_config=mapping(document, "container_config"),
    )


def _diff_ids(document: JsonObject) -> tuple[DiffId, ...]:
    rootfs = mapping(document, "rootfs")
    if not rootfs:
        raise InvalidManifest("invalid image config: no rootfs")
    if text(rootfs, "type", "layers") != "layers":
        raise InvalidManifest("invalid image config: rootfs is not of type layers")
    found = strings(rootfs, "diff_ids")
    if len(found) > MAX_DIFF_IDS:
        raise InvalidManifest(f"invalid image config: {len(found)} layers, the limit is {MAX_DIFF_IDS}")
    return tuple(DiffId(parse_digest(item)) for item in found)


def _history(document: JsonObject, layers: int) -> tuple[HistoryEntry, ...]:
    entries = objects(document, "history")
    if len(entries) > MAX_HISTORY:
        raise InvalidManifest(f"invalid image config: {len(entries)} history entries, the limit is {MAX_HISTORY}")
    history = tuple(
        HistoryEntry(
            created=text(entry, "created"),
            created_by=text(entry, "created_by"),
            author=text(entry, "author"),
            comment=text(entry, "comment"),
            empty_layer=boolean(entry, "empty_layer"),
        )
        for entry in entries
    )
    # Fewer is usual (docker import of old, buildpacks); more would count layers that are not there.
    filled = sum(not entry.empty_layer for entry in history)
    if filled > layers:
        raise InvalidManifest(f"invalid image config: {filled} history entries with a layer, but {layers} layers")
    return history


def encode_config(fields: Mapping[str, JsonValue]) -> bytes:
    """The bytes of a config we make ourselves: top-level keys in alphabetical order, nested ones as given.

    Source: what dockerd writes for commit and import.
    """
    return go_json({key: fields[key] for key in sorted(fields)})


def zero_run_config() -> JsonObject:
    """A run config in which nothing is set, all keys there: what dockerd writes as `container_config` of an import."""
    return {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None,
        "Cmd": None,
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": None,
    }
