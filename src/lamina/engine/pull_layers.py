"""The layers of one image, from the registry into the layer store, side by side (async).

Each layer is a transfer that all pulls share. It downloads and unpacks at once, and is registered when the layer below
is: a transfer holds the one below for itself, so it needs no pull to go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from lamina.distribution.metadata import LayerMetadata, Source
from lamina.distribution.registries import Registries
from lamina.distribution.repository import Repository
from lamina.distribution.transfers import Transfers
from lamina.engine.unpack import Unpack
from lamina.errors import DataLoss, DigestMismatch, InvalidArgument, NoSuchLayer, StorageFull
from lamina.layers.record import Layer
from lamina.layers.store import LayerStore, StagedLayer
from lamina.layers.unpack import Unpacked
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import ChainId, DiffId, hex_of
from lamina.oci.mediatype import compression_of
from lamina.wire.engine.progress import Progress, ProgressSink, discard
from lamina.workers import Workers

TOLD_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class WantedLayer:
    """One layer of an image that is being pulled. `below` is None for the lowest."""

    blob: Descriptor
    diff_id: DiffId
    chain_id: ChainId
    below: WantedLayer | None

    @property
    def short_id(self) -> str:
        """How progress calls it: by its compressed blob, as Docker does."""
        return hex_of(self.blob.digest)[:12]


@dataclass(frozen=True, slots=True)
class PullLayers:
    """Brings layers in; its fields are what it works with."""

    registries: Registries
    transfers: Transfers[Layer]
    layers: LayerStore
    metadata: LayerMetadata
    unpack: Unpack
    workers: Workers

    @asynccontextmanager
    async def present(
        self, wanted: list[WantedLayer], repository: Repository, name: str, progress: ProgressSink
    ) -> AsyncIterator[None]:
        """All layers are registered, and stay so as long as the `with` lasts. `name` is the repository's whole name."""
        async with AsyncExitStack() as held:
            try:
                async with asyncio.TaskGroup() as group:
                    for layer in wanted:
                        progress(Progress(status="Pulling fs layer", id=layer.short_id))
                        one = self._one(layer, repository, name, progress)
                        group.create_task(_enter(held, one))
            except BaseExceptionGroup as failures:
                raise _first(failures) from None
            yield

    def _one(
        self, layer: WantedLayer, repository: Repository, name: str, progress: ProgressSink
    ) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def registered() -> AsyncIterator[None]:
            if await self._hold(layer.chain_id):
                try:
                    progress(Progress(status="Already exists", id=layer.short_id))
                    yield
                finally:
                    await self.workers.call(self.layers.release, layer.chain_id)
                return
            # Another registry's bytes for the same layer are another transfer: nobody can make this pull wait or fail.
            key = (repository.endpoint.host, repository.name, layer.chain_id, layer.blob.digest)
            work = self._work(layer, repository, name)
            async with self.transfers.joined(key, work, progress):
                yield

        return registered()

    async def _hold(self, chain_id: ChainId) -> bool:
        try:
            await self.workers.obtain(lambda: self.layers.hold(chain_id), lambda _: self.layers.release(chain_id))
        except NoSuchLayer:
            return False
        return True

    def _work(
        self, layer: WantedLayer, repository: Repository, name: str
    ) -> Callable[[ProgressSink], Awaitable[Layer]]:
        async def work(progress: ProgressSink) -> Layer:
            if layer.below is None:
                staged, unpacked = await self._fetch(layer, repository, None, progress)
                return await self._register(layer, staged, unpacked, name=name, progress=progress)
            below = self._one(layer.below, repository, name, discard)
            if self.layers.can_stage_early:
                staged, unpacked = await self._fetch(layer, repository, None, progress)
                async with AsyncExitStack() as held:
                    async with self._discarding(staged):
                        await held.enter_async_context(below)
                    return await self._register(layer, staged, unpacked, name=name, progress=progress)
            async with below:
                staged, unpacked = await self._fetch(layer, repository, layer.below.chain_id, progress)
                return await self._register(layer, staged, unpacked, name=name, progress=progress)

        return work

    async def _register(
        self, layer: WantedLayer, staged: StagedLayer, unpacked: Unpacked, *, name: str, progress: ProgressSink
    ) -> Layer:
        parent = layer.below.chain_id if layer.below is not None else None

        def commit() -> Layer:
            if unpacked.diff_id != layer.diff_id:
                self.layers.discard(staged)
                raise DigestMismatch(
                    f"layer {layer.blob.digest} unpacks to {unpacked.diff_id}, the image's config says {layer.diff_id}"
                )
            made = self.layers.commit(staged, parent, unpacked)
            if compression_of(layer.blob.media_type) == "gzip":  # what is remembered is offered as gzip by a push
                self.metadata.remember(layer.diff_id, Source(layer.blob.digest, name))
            return made

        # From here on the staged layer is the store's: it is registered or thrown away, whoever is cancelled.
        registered = await self.workers.obtain(commit, lambda made: self.layers.release(made.chain_id))
        progress(Progress(status="Pull complete", id=layer.short_id))
        return registered

    @asynccontextmanager
    async def _discarding(self, staged: StagedLayer) -> AsyncIterator[None]:
        """A staged layer goes away when what follows fails; a second time is fine."""
        try:
            yield
        except BaseException:
            await self.workers.call(self.layers.discard, staged)
            raise

    async def _fetch(
        self, layer: WantedLayer, repository: Repository, below: ChainId | None, progress: ProgressSink
    ) -> tuple[StagedLayer, Unpacked]:
        if self.registries.downloads.locked():
            progress(Progress(status="Waiting", id=layer.short_id))
        try:
            async with self.registries.downloads, aclosing(_told(repository, layer, progress)) as chunks:
                return await self.unpack(
                    chunks, below, expected_digest=layer.blob.digest, expected_bytes=layer.blob.size_bytes
                )
        except (InvalidArgument, DataLoss, StorageFull) as error:
            raise type(error)(f"failed to register layer {layer.blob.digest}: {error}", hint=error.hint) from error


async def _enter(held: AsyncExitStack, one: AbstractAsyncContextManager[None]) -> None:
    await held.enter_async_context(one)


async def _told(repository: Repository, layer: WantedLayer, progress: ProgressSink) -> AsyncGenerator[bytes, None]:
    """The bytes of the layer, with news about them ten times a second."""
    loop = asyncio.get_running_loop()
    received, next_news = 0, 0.0
    total = layer.blob.size_bytes
    async with aclosing(repository.blob(layer.blob)) as chunks:
        async for chunk in chunks:
            received += len(chunk)
            if loop.time() >= next_news:
                next_news = loop.time() + TOLD_EVERY_S
                progress(Progress(status="Downloading", id=layer.short_id, current=received, total=total))
            yield chunk
    progress(Progress(status="Verifying Checksum", id=layer.short_id))
    progress(Progress(status="Download complete", id=layer.short_id))
    progress(Progress(status="Extracting", id=layer.short_id, current=received, total=total))


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """One failure says it: the others are its consequences, or of the same kind."""
    found: BaseException = failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
