"""Send images as an archive (async)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from lamina.engine.image_events import Publish, publish_image
from lamina.engine.outflow import stream
from lamina.errors import InvalidArgument
from lamina.images.saving import ImageSaver
from lamina.images.store import ImageStore
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class Save:
    """Write images with their layers and tags into one stream that `load` reads, here and in Docker."""

    saver: ImageSaver
    images: ImageStore
    workers: Workers
    publish: Publish

    async def __call__(self, names: Sequence[str]) -> AsyncIterator[bytes]:
        """The archive, piece by piece; what cannot be saved is told before the first piece.

        Raises:
            NoSuchImage, InvalidReference: a name means nothing.
            DataLoss: a layer is damaged.
        """
        if not names:
            raise InvalidArgument("no image was named")
        wanted = self.saver.find(names)
        async for piece in stream(self.workers, lambda out: self.saver.save(wanted, out)):
            yield piece
        for image in wanted:
            publish_image(self.publish, "save", image.config.image_id, self.images)
