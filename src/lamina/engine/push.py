"""Send an image of this engine to a registry (async)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lamina.changeset.compression import gzipped
from lamina.distribution.metadata import LayerMetadata, Source, proof
from lamina.distribution.registries import Registries
from lamina.distribution.repository import Repository
from lamina.distribution.spool import Spooled, spool
from lamina.engine.image_events import Publish
from lamina.engine.inflow import carry
from lamina.engine.outflow import stream
from lamina.errors import Conflict, NotFound
from lamina.images.describe import labels
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.kernel.durable import make_dirs
from lamina.layers.store import LayerStore
from lamina.oci import mediatype
from lamina.oci.config import ImageConfig
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import ChainId, DiffId, digest_of, hex_of
from lamina.oci.manifest import encode_manifest
from lamina.oci.platform import Platform, matches
from lamina.oci.reference import Reference
from lamina.wire.engine.auth import RegistryAuth
from lamina.wire.engine.progress import Progress, ProgressSink
from lamina.workers import Workers

UPLOADS_AT_ONCE = 3
TOLD_EVERY_S = 0.1
_CHUNK_BYTES = 1 << 20
_MOUNTS_TRIED = 3


@dataclass(frozen=True, slots=True)
class _Target:
    """Where one push goes, and who watches it."""

    repository: Repository
    reference: Reference
    auth: RegistryAuth | None
    progress: ProgressSink


@dataclass(frozen=True, slots=True)
class Push:
    """Send an image to a registry: layers it lacks, config, manifest, tag. `scratch` is where layers are packed."""

    registries: Registries
    layers: LayerStore
    images: ImageStore
    tags: TagStore
    metadata: LayerMetadata
    workers: Workers
    publish: Publish
    scratch: Path

    async def __call__(
        self, reference: Reference, *, platform: Platform | None, auth: RegistryAuth | None, progress: ProgressSink
    ) -> None:
        """Push one tag, or all tags of the name when `reference` has none.

        Raises:
            NotFound: no such image here, or not for the platform.
            Unauthenticated, PermissionDenied, Unavailable: as the registry says.
            DataLoss: a layer here is damaged; nothing of it is pushed.
        """
        progress(Progress(status=f"The push refers to repository [{reference.name}]"))
        references = self._references(reference)
        repository = await self.registries.push_to(reference, auth)
        for tagged in references:
            target = _Target(repository, tagged, auth, progress)
            await self._push(target, platform)
            self.publish(
                "image",
                "push",
                tagged.familiar(),
                {**labels(self.images.get(self.tags.resolve(tagged))), "name": tagged.familiar_name},
            )

    def _references(self, reference: Reference) -> list[Reference]:
        if reference.tag is not None:
            return [reference]
        found = [known for known in self.tags.all() if known.name == reference.name and known.tag is not None]
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
        return sorted(found, key=str)

    async def _push(self, target: _Target, platform: Platform | None) -> None:
        config = self._config(target.reference, platform)
        layers = await self._push_layers(target, config)
        await self._push_config(target, config)
        described = Descriptor(mediatype.DOCKER_CONFIG, config.image_id, len(config.raw))
        raw = encode_manifest(described, layers, media_type=mediatype.DOCKER_MANIFEST)
        tag = str(target.reference.tag)
        await target.repository.put_manifest(tag, raw, mediatype.DOCKER_MANIFEST)
        digest = digest_of(raw)
        await self.workers.call(self._remember, target.reference.with_digest(digest), config)
        target.progress(Progress(status=f"{tag}: digest: {digest} size: {len(raw)}"))
        target.progress(Progress(aux={"Tag": tag, "Digest": str(digest), "Size": len(raw)}))

    def _config(self, reference: Reference, platform: Platform | None) -> ImageConfig:
        try:
            config = self.images.get(self.tags.resolve(reference))
        except NotFound as error:
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}") from error
        if platform is not None and not matches(platform, config.platform):
            raise NotFound(
                f"image with reference {reference.familiar()} was found but does not provide the platform {platform}"
            )
        return config

    async def _push_layers(self, target: _Target, config: ImageConfig) -> list[Descriptor]:
        for diff_id in config.diff_ids:
            target.progress(Progress(status="Preparing", id=_short(diff_id)))
        turns = asyncio.Semaphore(UPLOADS_AT_ONCE)
        found: dict[ChainId, Descriptor] = {}

        async def one(diff_id: DiffId, chain: ChainId) -> None:
            async with turns:
                found[chain] = await self._push_layer(target, diff_id, chain)

        try:
            async with asyncio.TaskGroup() as group:
                for diff_id, chain in zip(config.diff_ids, config.chain_ids, strict=True):
                    group.create_task(one(diff_id, chain))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [found[chain] for chain in config.chain_ids]

    async def _push_layer(self, target: _Target, diff_id: DiffId, chain: ChainId) -> Descriptor:
        short = _short(diff_id)
        known = await self._already_there(target, diff_id)
        if known is not None:
            return known
        chunks = stream(self.workers, lambda out: self.layers.write_tar(chain, out))
        await self.workers.call(make_dirs, self.scratch)
        packed = await carry(self.workers, chunks, lambda pieces: spool(gzipped(pieces), self.scratch))
        with closing(packed):
            described = Descriptor(mediatype.DOCKER_LAYER_GZIP, packed.digest, packed.size_bytes)
            if await target.repository.has_blob(packed.digest) is None:
                await target.repository.upload(
                    packed.digest, packed.size_bytes, lambda: self._told(packed, short, target.progress)
                )
                target.progress(Progress(status="Pushed", id=short))
            else:
                target.progress(Progress(status="Layer already exists", id=short))
        await self._seen(target, diff_id, described)
        return described

    async def _already_there(self, target: _Target, diff_id: DiffId) -> Descriptor | None:
        """The layer's blob if the registry has it under a digest that we know, here or in another repository."""
        name, domain = target.reference.name, target.reference.domain
        sources = (await self.workers.call(self.metadata.sources, diff_id))[::-1]
        for source in (source for source in sources if source.repository == name):
            size = await target.repository.has_blob(source.digest)
            if size is not None:
                target.progress(Progress(status="Layer already exists", id=_short(diff_id)))
                return Descriptor(mediatype.DOCKER_LAYER_GZIP, source.digest, size)
            await self.workers.call(self.metadata.forget, diff_id, source)
        others = [source for source in sources if source.repository.startswith(f"{domain}/")]
        for source in [source for source in others if source.repository != name][:_MOUNTS_TRIED]:
            path = source.repository.removeprefix(f"{domain}/")
            if not await target.repository.mount(source.digest, path):
                continue
            size = await target.repository.has_blob(source.digest)
            if size is not None:
                target.progress(Progress(status=f"Mounted from {path}", id=_short(diff_id)))
                described = Descriptor(mediatype.DOCKER_LAYER_GZIP, source.digest, size)
                await self._seen(target, diff_id, described)
                return described
        return None

    async def _seen(self, target: _Target, diff_id: DiffId, blob: Descriptor) -> None:
        name = target.reference.name
        source = Source(blob.digest, name, proof(target.auth, blob.digest, name))
        await self.workers.call(self.metadata.remember, diff_id, source)

    async def _push_config(self, target: _Target, config: ImageConfig) -> None:
        if await target.repository.has_blob(config.image_id) is None:

            async def body() -> AsyncIterator[bytes]:
                yield config.raw

            await target.repository.upload(config.image_id, len(config.raw), body)

    async def _told(self, packed: Spooled, short: str, progress: ProgressSink) -> AsyncIterator[bytes]:
        """The bytes of a packed layer, with news about them ten times a second."""
        loop = asyncio.get_running_loop()
        offset, next_news = 0, 0.0
        while chunk := await self.workers.call(packed.read_at, offset, _CHUNK_BYTES):
            yield chunk
            offset += len(chunk)
            if loop.time() >= next_news:
                next_news = loop.time() + TOLD_EVERY_S
                progress(Progress(status="Pushing", id=short, current=offset, total=packed.size_bytes))

    def _remember(self, reference: Reference, config: ImageConfig) -> None:
        try:
            self.tags.set_digest(reference, config.image_id)
        except Conflict:
            return  # two images that differ in nothing a manifest tells: the first keeps the digest


def _short(diff_id: DiffId) -> str:
    return hex_of(diff_id)[:12]
