"""Load images from an archive that somebody sends (async)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from lamina.engine.image_events import Publish, publish_image
from lamina.engine.inflow import carry
from lamina.images.loading import ImageLoader, LoadedImage
from lamina.images.store import ImageStore
from lamina.wire.engine.progress import Progress, ProgressSink
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class Load:
    """Bring the images of an archive into this engine, with their tags."""

    loader: ImageLoader
    images: ImageStore
    workers: Workers
    publish: Publish

    async def __call__(self, chunks: AsyncIterator[bytes], *, quiet: bool, progress: ProgressSink) -> None:
        """Read the whole archive: docker-archive (old and combined layout) or OCI layout, compressed or not.

        `quiet` leaves out how far each layer has come.

        Raises:
            InvalidArgument and its kinds, DataLoss: it is no image archive, or a broken one; nothing of it is left.
            StorageFull: no room.
        """
        loop = asyncio.get_running_loop()

        def report(step: Progress) -> None:
            loop.call_soon_threadsafe(progress, step)

        def read(pieces: Iterator[bytes]) -> list[LoadedImage]:
            return self.loader.load(pieces, report, quiet=quiet)

        for loaded in await carry(self.workers, chunks, read):
            publish_image(self.publish, "load", loaded.image, self.images)
            for reference in loaded.references:
                progress(Progress(stream=f"Loaded image: {reference.familiar()}\n"))
            if not loaded.references:
                progress(Progress(stream=f"Loaded image ID: {loaded.image}\n"))
