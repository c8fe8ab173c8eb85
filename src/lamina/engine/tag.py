"""Give an image another name (async)."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.clock import Clock, rfc3339
from lamina.engine.image_events import Publish, publish_image
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.oci.digest import ImageId
from lamina.oci.reference import Reference
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class Tag:
    """Let a name mean an image; what it meant before keeps its other names."""

    images: ImageStore
    tags: TagStore
    lookup: ImageLookup
    clock: Clock
    workers: Workers
    publish: Publish

    async def __call__(self, name: str, reference: Reference) -> None:
        """Raises NoSuchImage, InvalidReference."""
        found = self.lookup.find(name)
        wanted = reference.with_default_tag()
        async with self.workers.holding(("image", found)):  # or it is removed between the look and the name
            await self.workers.call(self.tag_image, found, wanted)
        publish_image(self.publish, "tag", found, self.images, name=wanted.familiar())

    def tag_image(self, image: ImageId, reference: Reference) -> None:
        """The blocking part. Raises NoSuchImage: it was removed meanwhile."""
        self.images.get(image)
        self.tags.set_tag(reference, image)
        self.images.set_last_updated(image, rfc3339(self.clock.now_ns()))
