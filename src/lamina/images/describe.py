"""Images as Docker's clients see them: list rows, inspect and history (blocking: reads the stores)."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Protocol

from lamina.clock import ZERO_TIME
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject, JsonValue, from_strings, string_map
from lamina.oci.config import ImageConfig
from lamina.oci.digest import ChainId, ImageId
from lamina.oci.reference import Reference

_STAMP = re.compile(r"(\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2})(\.\d{1,9})?(?:[Zz]|([+-])(\d{2}):(\d{2}))")
ZERO_SECONDS = -62135596800
"""Go's zero time in seconds since the epoch."""


class SizedLayer(Protocol):
    """What is read of a layer."""

    @property
    def size_bytes(self) -> int: ...


class SizedLayers(Protocol):
    """What is asked of the layer store."""

    def get(self, chain_id: ChainId) -> SizedLayer:
        """Raises NoSuchLayer."""


@lru_cache(maxsize=4096)
def created_ns(text: str) -> int:
    """An RFC 3339 time in nanoseconds since the epoch; Go's zero time when it is none."""
    match = _STAMP.fullmatch(text)
    if match is None:
        return ZERO_SECONDS * 1_000_000_000
    try:
        seconds = calendar.timegm(time.strptime(match[1].upper(), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return ZERO_SECONDS * 1_000_000_000
    if match[3]:
        offset = int(match[4]) * 3600 + int(match[5]) * 60
        seconds += offset if match[3] == "-" else -offset
    return seconds * 1_000_000_000 + int((match[2] or ".0")[1:].ljust(9, "0"))


def size_of(config: ImageConfig, layers: SizedLayers) -> int:
    """Bytes of all layers of an image."""
    return sum(layers.get(chain_id).size_bytes for chain_id in config.chain_ids)


def names_of(references: Iterable[Reference]) -> tuple[list[str], list[str]]:
    """(tags, digests) as people write them."""
    tags: list[str] = []
    digests: list[str] = []
    for reference in references:
        (tags if reference.digest is None else digests).append(reference.familiar())
    return tags, digests


def summary(
    image: ImageId,
    references: Iterable[Reference],
    images: ImageStore,
    layers: SizedLayers,
) -> JsonObject:
    """One row of the image list (`ImageSummary`)."""
    config = images.get(image)
    tags, digests = names_of(references)
    return {
        "Containers": -1,
        "Created": created_ns(config.created) // 1_000_000_000,
        "Id": str(image),
        "Labels": label_object(config),
        "ParentId": str(images.parent(image) or ""),
        "RepoDigests": from_strings(digests),
        "RepoTags": from_strings(tags),
        "SharedSize": -1,
        "Size": size_of(config, layers),
    }


def labels(config: ImageConfig) -> dict[str, str]:
    """The labels of an image."""
    return string_map(config.run, "Labels")


def label_object(config: ImageConfig) -> JsonObject:
    return dict(labels(config).items())


def inspection(
    image: ImageId,
    images: ImageStore,
    tags: TagStore,
    layers: SizedLayers,
    *,
    driver: tuple[str, Mapping[str, str]],
) -> JsonObject:
    """An image as `docker image inspect` shows it; `driver` is the storage driver's name and what it says."""
    config = images.get(image)
    repo_tags, repo_digests = names_of(tags.references(image))
    data: JsonObject = dict(driver[1].items())
    shown: JsonObject = {
        "Id": str(image),
        "RepoTags": from_strings(repo_tags),
        "RepoDigests": from_strings(repo_digests),
        "Parent": str(images.parent(image) or ""),
        "Comment": _comment(config),
        "Created": config.created or ZERO_TIME,
        "Container": config.container,
        "ContainerConfig": config.container_config or None,
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": config.run or None,
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": size_of(config, layers),
        "GraphDriver": {"Data": data, "Name": driver[0]},
        "RootFS": _rootfs(config),
        "Metadata": {"LastTagTime": images.last_updated(image) or ZERO_TIME},
    }
    if config.variant:
        shown["Variant"] = config.variant
    if config.os_version:
        shown["OsVersion"] = config.os_version
    return shown


def _comment(config: ImageConfig) -> str:
    # An image made by commit or a build says it in its history only.
    if config.comment or not config.history:
        return config.comment
    return config.history[-1].comment


def _rootfs(config: ImageConfig) -> JsonObject:
    found: JsonObject = {"Type": "layers"}
    if config.diff_ids:
        found["Layers"] = [str(diff_id) for diff_id in config.diff_ids]
    return found


def history(image: ImageId, images: ImageStore, tags: TagStore, layers: SizedLayers) -> list[JsonObject]:
    """The steps that made an image, newest first. Steps whose image is not here have the id `<missing>`.

    Source: moby daemon/images/image_history.go.
    """
    config = images.get(image)
    chains = iter(config.chain_ids)
    rows: list[JsonObject] = []
    for entry in config.history:
        size = 0
        if not entry.empty_layer:
            size = layers.get(next(chains)).size_bytes
        rows.append(
            {
                "Comment": entry.comment,
                "Created": created_ns(entry.created) // 1_000_000_000,
                "CreatedBy": entry.created_by,
                "Id": "<missing>",
                "Size": size,
                "Tags": None,
            },
        )
    rows.reverse()
    step: ImageId | None = image
    for row in rows:
        if step is None:
            break
        row["Id"] = str(step)
        row["Tags"] = _tag_list(step, tags)
        step = images.parent(step)
    return rows


def _tag_list(image: ImageId, tags: TagStore) -> JsonValue:
    found, _ = names_of(tags.references(image))
    return from_strings(found) or None
