"""Remove the images that nobody uses (async).

Source: moby daemon/images/image_prune.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from lamina.clock import Clock
from lamina.engine.prune_filters import PruneChoice, flag, prune_choice
from lamina.engine.remove_image import ImageUses
from lamina.errors import Conflict, NotFound
from lamina.images.describe import created_ns, labels
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject, JsonValue, text
from lamina.layers.store import LayerStore
from lamina.oci.digest import ImageId
from lamina.wire.engine.filters import Filters

Publish: TypeAlias = Callable[[str, str, str, Mapping[str, str]], None]
_FILTERS = frozenset({"dangling", "label", "label!", "until"})


class RemoveImage(Protocol):
    """The verb that takes a name or an image away."""

    async def __call__(self, name: str, *, force: bool = False, prune: bool = True) -> list[JsonObject]: ...


@dataclass(frozen=True, slots=True)
class PruneImages:
    """Remove every image without a tag, or with `dangling=false` every one that no container was made from.

    An image in use keeps all its names; dockerd takes away all but the last.
    """

    images: ImageStore
    tags: TagStore
    layers: LayerStore
    uses: ImageUses
    remove: RemoveImage
    clock: Clock
    publish: Publish

    async def __call__(self, filters: Filters) -> JsonObject:
        """What was untagged and deleted, and the bytes of the layers that went.

        Raises:
            InvalidArgument: a filter or a value that nothing understands.
        """
        choice = prune_choice(filters, _FILTERS, self.clock.now_ns())
        only_dangling = flag(filters, "dangling", default=True)
        sizes = {str(layer.chain_id): layer.size_bytes for layer in self.layers.layers()}
        records: list[JsonValue] = []
        reclaimed = 0
        for image in self.images.ids():
            for name in self._names(image, choice, only_dangling=only_dangling):
                for record in await self._take(name):
                    reclaimed += sizes.pop(text(record, "Deleted"), 0)
                    records.append(record)
        self.publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return {"ImagesDeleted": records or None, "SpaceReclaimed": reclaimed}

    def _names(self, image: ImageId, choice: PruneChoice, *, only_dangling: bool) -> list[str]:
        """What has to be taken away for the image to go; nothing when it stays."""
        try:
            config = self.images.get(image)
        except NotFound:
            return []  # it went with a child
        if any(True for _ in self.uses(image)) or not choice.fits(created_ns(config.created), labels(config)):
            return []
        references = self.tags.references(image)
        if not references:
            return [] if self.images.children(image) else [str(image)]
        if only_dangling and any(reference.digest is None for reference in references):
            return []
        return [reference.familiar() for reference in references]

    async def _take(self, name: str) -> list[JsonObject]:
        try:
            return await self.remove(name, force=False, prune=True)
        except (Conflict, NotFound):
            return []  # a container or another image needs it, or it went already
