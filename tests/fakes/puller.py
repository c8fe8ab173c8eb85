"""The part of an engine that pulls and pushes, on a root of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lamina.distribution.metadata import LayerMetadata
from lamina.distribution.registries import Registries
from lamina.distribution.registry_config import RegistryConfig
from lamina.distribution.retry import Retry
from lamina.distribution.transfers import Transfers
from lamina.engine.pull import Pull
from lamina.engine.pull_layers import PullLayers
from lamina.engine.push import Push
from lamina.engine.unpack import Unpack
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.layers.pool import WorkerPool
from lamina.layers.record import Layer
from lamina.layers.store import LayerStore
from lamina.oci.platform import Platform
from lamina.storage.mounting import Mounts
from lamina.storage.select import choose_driver
from lamina.wire.engine.progress import Progress
from lamina.workers import Workers
from tests.fakes.registries import AT_ONCE


@dataclass
class Puller:
    root: Path
    workers: Workers
    registries: Registries
    layers: LayerStore
    images: ImageStore
    tags: TagStore
    metadata: LayerMetadata
    pull: Pull
    push: Push
    published: list[tuple[str, str, str, Mapping[str, str]]] = field(default_factory=list)
    told: list[Progress] = field(default_factory=list)

    def statuses(self) -> list[str]:
        return [step.status for step in self.told]

    def leftovers(self) -> list[str]:
        """What is there of layers and images, committed or not."""
        found = [f"layer {layer.chain_id}" for layer in self.layers.layers()]
        found += [f"image {image}" for image in self.images.ids()]
        found += [f"tag {reference}" for reference in self.tags.all()]
        staging = self.root / "image" / self.driver_name / "layerdb" / "tmp"
        if staging.is_dir():
            found += [f"staged {path.name}" for path in staging.iterdir()]
        return found

    driver_name: str = ""


@contextlib.asynccontextmanager
async def puller(
    root: Path,
    driver_name: str = "overlay2",
    *,
    config: RegistryConfig | None = None,
    retry: Retry = AT_ONCE,
    host: str = "amd64",
) -> AsyncIterator[Puller]:
    driver = choose_driver(root, driver_name, {})
    image = root / "image" / driver.name
    layers = LayerStore(image / "layerdb", driver, Mounts(driver))
    layers.load()
    images = ImageStore(image / "imagedb", layers)
    images.load()
    tags = TagStore(image / "repositories.json")
    tags.load()
    metadata = LayerMetadata(image / "distribution")
    workers = Workers()
    registries = Registries(config or RegistryConfig(certs_dirs=()), workers, retry=retry)

    async def release(layer: Layer) -> None:
        await workers.call(layers.release, layer.chain_id)

    found: list[tuple[str, str, str, Mapping[str, str]]] = []

    def publish(kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        found.append((kind, action, actor, attributes))

    with WorkerPool() as pool:
        async with Transfers[Layer](release) as transfers:
            unpack = Unpack(layers, pool, workers)
            pull_layers = PullLayers(registries, transfers, layers, metadata, unpack, workers)
            pull = Pull(registries, pull_layers, images, tags, workers, publish, Platform("linux", host))
            push = Push(registries, layers, images, tags, metadata, workers, publish, root / "tmp")
            made = Puller(root, workers, registries, layers, images, tags, metadata, pull, push, found)
            made.driver_name = driver.name
            try:
                yield made
            finally:
                await registries.aclose()
    driver.close()
    workers.close()


Told = Callable[[Progress], None]
