"""Make an image of one layer from the tar of a file system (async).

Source: moby daemon/images/image_import.go.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from lamina.clock import Clock, rfc3339
from lamina.engine.config_changes import apply_changes
from lamina.engine.image_events import Publish, publish_image
from lamina.engine.inflow import carry
from lamina.errors import InvalidReference
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject
from lamina.layers.store import LayerStore
from lamina.oci.config import encode_config, zero_run_config
from lamina.oci.digest import ImageId
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.wire.engine.progress import Progress, ProgressSink
from lamina.workers import Workers

_REPORT_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Import:
    """Bring the tree in a tar (compressed or not) in as an image."""

    layers: LayerStore
    images: ImageStore
    tags: TagStore
    host: Platform
    clock: Clock
    workers: Workers
    publish: Publish
    version: str

    async def __call__(
        self,
        chunks: AsyncIterator[bytes],
        reference: Reference | None,
        *,
        message: str,
        changes: Sequence[str],
        platform: Platform | None,
        progress: ProgressSink,
    ) -> ImageId:
        """`changes` are Dockerfile instructions on the empty config; without `reference` the image has no name.

        Raises:
            InvalidArgument: a change that makes no sense. InvalidReference: a digest instead of a tag.
            UnsafeArchive, DataLoss: no tar, or a broken or hostile one; nothing is left of it.
        """
        if reference is not None and reference.digest is not None:
            raise InvalidReference("cannot import digest reference")
        run = apply_changes({}, changes)
        loop = asyncio.get_running_loop()

        def report(step: Progress) -> None:
            loop.call_soon_threadsafe(progress, step)

        def read(pieces: Iterator[bytes]) -> ImageId:
            return self._bring_in(_told(pieces, report), run, message=message, platform=platform or self.host)

        image = await carry(self.workers, chunks, read)
        if reference is not None:
            await self.workers.call(self._tag, image, reference.with_default_tag())
        publish_image(self.publish, "import", image, self.images, name=reference.familiar() if reference else "")
        progress(Progress(status=str(image)))
        return image

    def _bring_in(self, pieces: Iterator[bytes], run: JsonObject, *, message: str, platform: Platform) -> ImageId:
        # No file in between: an import is one layer, read once from start to end.
        with io.BufferedReader(_Pieces(pieces), _BUFFER_BYTES) as tar:
            return self._register(tar, run, message=message, platform=platform)

    def _register(self, tar: BinaryIO, run: JsonObject, *, message: str, platform: Platform) -> ImageId:
        layer = self.layers.register(tar, None)
        comment = message or "Imported from -"
        try:
            created = rfc3339(self.clock.now_ns())
            fields: JsonObject = {
                "architecture": platform.architecture,
                "comment": comment,
                "config": {**zero_run_config(), **run},
                "container_config": zero_run_config(),
                "created": created,
                "docker_version": self.version,
                "history": [{"created": created, "comment": comment}],
                "os": platform.os,
                "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id)]},
            }
            if platform.variant:
                fields["variant"] = platform.variant
            return self.images.put(encode_config(fields))
        finally:
            self.layers.release(layer.chain_id)

    def _tag(self, image: ImageId, reference: Reference) -> None:
        self.tags.set_tag(reference, image)
        self.images.set_last_updated(image, rfc3339(self.clock.now_ns()))


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # any writable buffer
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _told(pieces: Iterator[bytes], report: ProgressSink) -> Iterator[bytes]:
    current = told = 0
    for piece in pieces:
        yield piece
        current += len(piece)
        if current - told >= _REPORT_BYTES:
            told = current
            report(Progress(status="Importing", current=current))
