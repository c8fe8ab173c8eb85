"""Show how an image came to be (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.images.describe import SizedLayers, history
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject


@dataclass(frozen=True, slots=True)
class History:
    """The steps of an image, newest first."""

    images: ImageStore
    tags: TagStore
    lookup: ImageLookup
    layers: SizedLayers

    async def __call__(self, name: str) -> list[JsonObject]:
        """Docker's history rows. Raises NoSuchImage."""
        return history(self.lookup.find(name), self.images, self.tags, self.layers)
