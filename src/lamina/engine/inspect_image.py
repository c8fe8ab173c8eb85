"""Show everything about one image (async)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lamina.images.describe import inspection
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject
from lamina.layers.store import LayerStore
from lamina.oci.digest import ImageId
from lamina.storage.driver import StorageDriver
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class InspectImage:
    """An image with its config, names, layers and where the storage driver keeps it."""

    images: ImageStore
    tags: TagStore
    lookup: ImageLookup
    layers: LayerStore
    driver: StorageDriver
    workers: Workers

    async def __call__(self, name: str) -> JsonObject:
        """Docker's `ImageInspect`, with the fields of every API version. Raises NoSuchImage."""
        found = self.lookup.find(name)
        return await self.workers.call(self._inspect, found)

    def _inspect(self, image: ImageId) -> JsonObject:
        return inspection(image, self.images, self.tags, self.layers, driver=(self.driver.name, self._where(image)))

    def _where(self, image: ImageId) -> Mapping[str, str]:
        top = self.images.get(image).top
        return self.driver.describe(self.layers.get(top).cache_id) if top is not None else {}
