"""Bring an image from a registry into this engine (async)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from lamina.distribution.registries import Registries
from lamina.distribution.repository import Repository
from lamina.distribution.resolve import Resolved, resolve
from lamina.engine.image_events import Publish
from lamina.engine.pull_layers import PullLayers, WantedLayer
from lamina.errors import Conflict, InvalidManifest, LaminaError, NoSuchImage, NotFound, Unsupported
from lamina.images.describe import labels
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.layers.store import MAX_DEPTH
from lamina.oci.config import MAX_CONFIG_BYTES, ImageConfig, decode_config
from lamina.oci.digest import ImageId
from lamina.oci.manifest import Manifest
from lamina.oci.platform import Platform, matches
from lamina.oci.reference import Reference
from lamina.wire.engine.auth import RegistryAuth
from lamina.wire.engine.progress import Progress, ProgressSink, discard
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class Pull:
    """Bring an image from a registry into this engine, and tag it."""

    registries: Registries
    pull_layers: PullLayers
    images: ImageStore
    tags: TagStore
    workers: Workers
    publish: Publish
    host: Platform

    async def __call__(
        self, reference: Reference, *, platform: Platform | None, auth: RegistryAuth | None, progress: ProgressSink
    ) -> ImageId:
        """Pull `reference` for `platform` (None: this host's). What is already here is not fetched again.

        After an error nothing of the image is left, and a tag of that name is as it was.

        Raises:
            NotFound, Unauthenticated, PermissionDenied, Unavailable: the registry, or the way to it.
            InvalidManifest, DataLoss, UnsafeArchive: what it serves.
            Unsupported: no image for the platform.
            StorageFull: no room.
        """
        wanted = reference.with_default_tag()
        repositories = await self.registries.pull_from(wanted, auth)
        for mirror in repositories[:-1]:
            try:
                return await self._pull(mirror, wanted, platform, progress)
            except LaminaError as error:
                progress(Progress(status=f"Mirror {mirror.endpoint.host} does not serve it: {error}"))
        return await self._pull(repositories[-1], wanted, platform, progress)

    async def _pull(
        self, repository: Repository, reference: Reference, platform: Platform | None, progress: ProgressSink
    ) -> ImageId:
        # Nothing is told before: a failure up to here is the answer's status, which clients decide by.
        resolved = await self._resolve(repository, reference, platform or self.host)
        asked = str(reference.digest or reference.tag)
        progress(Progress(status=f"Pulling from {reference.repository_path}", id=asked))
        config = await self._config(repository, resolved.manifest, reference, platform)
        layers = wanted_layers(resolved.manifest, config)
        # Of an image that is here nothing is told layer by layer, as in Docker; its layers are held all the same.
        news_of_layers = discard if self.images.exists(config.image_id) else progress
        async with (
            self.pull_layers.present(layers, repository, reference.name, news_of_layers),
            # Not while it is removed, nor while another pull of it fails: a name must not outlive its image.
            self.workers.holding(("image", config.image_id)),
        ):
            is_new = await self.workers.call(self._record, reference, resolved, config)
        progress(Progress(status=f"Digest: {resolved.digest}"))
        outcome = "Downloaded newer image" if is_new else "Image is up to date"
        progress(Progress(status=f"Status: {outcome} for {reference.familiar()}"))
        attributes = {**labels(config), "name": reference.familiar_name}
        self.publish("image", "pull", reference.familiar(), attributes)
        return config.image_id

    async def _resolve(self, repository: Repository, reference: Reference, platform: Platform) -> Resolved:
        try:
            return await resolve(repository, reference, platform)
        except Unsupported as error:
            raise NotFound(error.message, hint=error.hint) from error

    async def _config(
        self, repository: Repository, manifest: Manifest, reference: Reference, platform: Platform | None
    ) -> ImageConfig:
        known = ImageId(manifest.config.digest)
        if self.images.exists(known):
            config = self.images.get(known)
        else:
            raw = await repository.small_blob(manifest.config, limit_bytes=MAX_CONFIG_BYTES)
            config = await self.workers.call(decode_config, raw)
        if config.os != "linux":
            raise Unsupported(f'image operating system "{config.os[:40]}" cannot be used on this platform')
        if platform is not None and not matches(platform, config.platform):
            raise NotFound(
                f"image with reference {reference.familiar()} was found but does not match the specified platform: "
                f"wanted {platform}, actual: {config.platform}"
            )
        return config

    def _record(self, reference: Reference, resolved: Resolved, config: ImageConfig) -> bool:
        """Write down image and names, names last; whether the reference means another image than before."""
        before = self._meaning(reference)
        with ExitStack() as undo:
            was_there = self.images.exists(config.image_id)
            image = self.images.put(config.raw)
            if not was_there:
                undo.callback(self.images.delete, image)
            self._name_digest(reference, resolved, image)
            if reference.digest is None:
                self.tags.set_tag(reference, image)
            undo.pop_all()
        return before != image

    def _name_digest(self, reference: Reference, resolved: Resolved, image: ImageId) -> None:
        try:
            self.tags.set_digest(reference.with_digest(resolved.digest), image)
        except Conflict:
            # The index was pulled for another platform before: its digest goes on meaning that image, as in Docker.
            if reference.digest is not None:
                raise

    def _meaning(self, reference: Reference) -> ImageId | None:
        try:
            return self.tags.resolve(reference)
        except NoSuchImage:
            return None


def wanted_layers(manifest: Manifest, config: ImageConfig) -> list[WantedLayer]:
    """The layers of an image, lowest first.

    Raises:
        InvalidManifest: manifest and config do not agree on how many there are, or there are too many.
    """
    if len(manifest.layers) != len(config.diff_ids):
        raise InvalidManifest(
            f"invalid image: its manifest has {len(manifest.layers)} layers, its config {len(config.diff_ids)}"
        )
    if len(manifest.layers) > MAX_DEPTH:
        raise InvalidManifest(
            f"max depth exceeded: the image has {len(manifest.layers)} layers, the limit is {MAX_DEPTH}"
        )
    found: list[WantedLayer] = []
    for blob, diff_id, chain in zip(manifest.layers, config.diff_ids, config.chain_ids, strict=True):
        found.append(WantedLayer(blob, diff_id, chain, found[-1] if found else None))
    return found
