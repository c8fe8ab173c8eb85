"""Writing images out as one archive (blocking)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

from lamina.images.archive_writer import CLOSING, SavedImage, needed_layers, plan_archive
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.layers.store import LayerStore
from lamina.oci.digest import ImageId
from lamina.oci.reference import Reference


class Out(Protocol):
    """Where the archive goes."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...


class ImageSaver:
    """Writes archives from the stores."""

    def __init__(self, layers: LayerStore, images: ImageStore, tags: TagStore, lookup: ImageLookup) -> None:
        self._layers = layers
        self._images = images
        self._tags = tags
        self._lookup = lookup

    def find(self, names: Sequence[str]) -> list[SavedImage]:
        """The images that these names mean, each once, with the tags that were asked for.

        A name without a tag stands for every tag of it; an id brings its image without a name.

        Raises:
            NoSuchImage, InvalidReference.
        """
        wanted: dict[ImageId, dict[Reference, None]] = {}
        for name in names:
            for image, reference in self._meant(name):
                tags = wanted.setdefault(image, {})
                if reference is not None and reference.digest is None:
                    tags[reference] = None
        return [
            SavedImage(self._images.get(image), tuple(tags), self._images.parent(image))
            for image, tags in wanted.items()
        ]

    def save(self, wanted: Sequence[SavedImage], out: Out) -> None:
        """Write the archive of these images; the same images give the same bytes.

        Raises:
            NoSuchLayer: an image was deleted meanwhile.
            DataLoss: a layer is not what it was; part of the archive is written by then.
        """
        with contextlib.ExitStack() as held:
            for image in wanted:
                top = image.config.top
                if top is not None:
                    self._layers.hold(top)
                    held.callback(self._layers.release, top)
            sizes = {diff_id: self._layers.tar_bytes(chain) for diff_id, chain in needed_layers(wanted).items()}
            plan = plan_archive(wanted, sizes)
            out.write(plan.head)
            for layer in plan.layers:
                out.write(layer.header())
                self._layers.write_tar(layer.chain_id, out)
                out.write(layer.padding())
            out.write(CLOSING)

    def _meant(self, name: str) -> list[tuple[ImageId, Reference | None]]:
        reference = self._lookup.name_of(name)
        if reference is not None and reference.tag is None and reference.digest is None:
            every = self._every_tag(reference)
            if every:
                return every
        return [(self._lookup.find(name), self._lookup.reference_of(name))]

    def _every_tag(self, name: Reference) -> list[tuple[ImageId, Reference | None]]:
        found: list[tuple[ImageId, Reference | None]] = [
            (image, reference)
            for reference, image in self._tags.all().items()
            if reference.name == name.name and self._images.exists(image)
        ]
        return sorted(found, key=lambda pair: str(pair[1]))
