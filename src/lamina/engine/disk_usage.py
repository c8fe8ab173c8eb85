"""Tell what images, containers and volumes take on disk (async; the counting is done in threads)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lamina.containers.store import ContainerStore
from lamina.engine.volumes import volume_body
from lamina.errors import NotFound
from lamina.images.describe import summary
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject, JsonValue
from lamina.layers.store import LayerStore
from lamina.oci.digest import ChainId, ImageId, chain_of
from lamina.volumes.store import VolumeStore
from lamina.wire.engine.filters import Filters
from lamina.workers import Workers


class ListContainers(Protocol):
    """The verb that makes the rows of `ps`."""

    async def __call__(
        self,
        *,
        all: bool,  # noqa: A002 (Docker's word)
        limit: int,
        size: bool,
        filters: Filters,
    ) -> list[JsonObject]: ...


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Docker's `SystemDataUsage`. Holds no lock while it counts: what changes meanwhile may be counted or not."""

    images: ImageStore
    tags: TagStore
    layers: LayerStore
    containers: ContainerStore
    volumes: VolumeStore
    list_containers: ListContainers
    workers: Workers

    async def __call__(self, kinds: frozenset[str]) -> JsonObject:
        """`kinds` are of `image`, `container`, `volume`, `build-cache`; the others are left out."""
        answer: JsonObject = {}
        if "image" in kinds:
            answer["LayersSize"] = sum(layer.size_bytes for layer in self.layers.layers())
            answer["Images"] = await self.workers.call(self._images)
        if "container" in kinds:
            rows: list[JsonValue] = list(await self.list_containers(all=True, limit=0, size=True, filters={}))
            answer["Containers"] = rows
        if "volume" in kinds:
            answer["Volumes"] = await self.workers.call(self._volumes)
        if "build-cache" in kinds:
            answer["BuildCache"] = []
        return answer

    def _images(self) -> list[JsonValue]:
        chains: dict[ImageId, tuple[ChainId, ...]] = {}
        for image in self.images.ids():
            try:
                chains[image] = chain_of(self.images.get(image).diff_ids)
            except NotFound:
                continue  # removed while we count
        sharers = Counter(chain for stack in chains.values() for chain in stack)
        users = Counter(container.image_id for container in self.containers.all())
        rows: list[JsonValue] = []
        for image, stack in chains.items():
            try:
                row = summary(image, self.tags.references(image), self.images, self.layers)
                shared = [chain for chain in stack if sharers[chain] > 1]
                row["SharedSize"] = sum(self.layers.get(chain).size_bytes for chain in shared)
            except NotFound:
                continue
            row["Containers"] = users[image]
            rows.append(row)
        return rows

    def _volumes(self) -> list[JsonValue]:
        rows: list[JsonValue] = []
        for volume in self.volumes.list():
            row = volume_body(volume)
            row["UsageData"] = {
                "Size": tree_bytes(volume.mountpoint),
                "RefCount": len(self.volumes.holders(volume.name)),
            }
            rows.append(row)
        return rows


def tree_bytes(root: Path) -> int:
    """Bytes of what is below a directory without the directories, each inode once; what vanishes meanwhile is skipped.

    Source: moby daemon/pkg/directory, Size.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    pending: list[str] = [os.fspath(root)]
    while pending:
        for entry in _entries(pending.pop()):
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            identity = (found.st_dev, found.st_ino)
            if found.st_nlink == 1 or identity not in seen:
                total += found.st_size
                if found.st_nlink > 1:
                    seen.add(identity)
    return total


def _entries(directory: str) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return ()
