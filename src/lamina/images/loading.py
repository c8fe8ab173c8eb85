"""Bringing the images of an archive into the stores (blocking).

Layers are unpacked while the archive still streams in, several side by side where the storage driver can fill a layer
before it knows its parent. Which layer belongs where is told by the archive's own files, often its last; then the
layers are put on top of each other, checked against the config, and everything that nobody wanted is thrown away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from lamina.errors import DigestMismatch, InvalidManifest, NoSuchImage, NoSuchLayer, Unsupported
from lamina.images.archive_index import ArchivedImage, archived_images
from lamina.images.archive_intake import Contents, take_in
from lamina.images.layer_copy import register_copy
from lamina.images.spool import Spool
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.layers.store import MAX_DEPTH, LayerStore, StagedLayer
from lamina.layers.unpack import Unpacked
from lamina.oci.digest import ChainId, DiffId, ImageId
from lamina.oci.reference import Reference
from lamina.wire.engine.progress import Progress

_REPORT_BYTES = 4 << 20

Report = Callable[[Progress], None]


class UnpackSpool(Protocol):
    """Unpacks what a spool brings into a staged layer, `side_by_side` at once."""

    @property
    def side_by_side(self) -> int: ...

    def __call__(self, spool: Spool, staged: StagedLayer, /) -> Unpacked: ...


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that came in, and the names it got."""

    image: ImageId
    references: tuple[Reference, ...]


class ImageLoader:
    """Loads archives into the stores."""

    def __init__(
        self,
        layers: LayerStore,
        images: ImageStore,
        tags: TagStore,
        *,
        unpack: UnpackSpool,
        scratch: Path,
    ) -> None:
        self._layers = layers
        self._images = images
        self._tags = tags
        self._unpack = unpack
        self._scratch = scratch

    def load(self, chunks: Iterator[bytes], report: Report, *, quiet: bool = False) -> list[LoadedImage]:
        """Load every image of an archive.

        After an error nothing of the archive is left, except images that were complete before it.

        Raises:
            InvalidArgument, UnsafeArchive, InvalidManifest, DataLoss: the archive is not what it should be.
            StorageFull: no room.
        """
        with _Intakes(self._layers, self._unpack, self._scratch, None if quiet else report) as intakes:
            contents = take_in(chunks, intakes)
            found = archived_images(contents.documents)
            for archived in found:
                self._check(archived, contents, intakes)
            loaded = [self._bring_in(archived, contents, intakes, report) for archived in found]
        for archived in found:
            self._link_parent(archived)
        return loaded

    def _check(self, archived: ArchivedImage, contents: Contents, intakes: _Intakes) -> None:
        config = archived.config
        if config.os != "linux":
            raise Unsupported(
                f'cannot load {config.os} image on linux: operating system "{config.os}" is not supported'
            )
        if len(config.diff_ids) > MAX_DEPTH:
            raise InvalidManifest("max depth exceeded", hint=f"an image has {MAX_DEPTH} layers at most")
        for name, chain_id in zip(archived.layer_names, config.chain_ids, strict=True):
            if contents.resolve(name) not in intakes.names and not self._layers.exists(chain_id):
                raise InvalidManifest(f"invalid image archive: the layer {name[:200]!r} is not in it")

    def _bring_in(
        self,
        archived: ArchivedImage,
        contents: Contents,
        intakes: _Intakes,
        report: Report,
    ) -> LoadedImage:
        config = archived.config
        with contextlib.ExitStack() as held:
            parent: ChainId | None = None
            for index, (name, diff_id) in enumerate(zip(archived.layer_names, config.diff_ids, strict=True)):
                chain_id = config.chain_ids[index]
                if not self._hold(chain_id):
                    intakes.commit(contents.resolve(name), index, diff_id, parent)
                held.callback(self._layers.release, chain_id)
                parent = chain_id
            image = self._images.put(config.raw)
        for reference in archived.references:
            self._tag(reference, image, report)
        return LoadedImage(image, archived.references)

    def _hold(self, chain_id: ChainId) -> bool:
        try:
            self._layers.hold(chain_id)
        except NoSuchLayer:
            return False
        return True

    def _tag(self, reference: Reference, image: ImageId, report: Report) -> None:
        with contextlib.suppress(NoSuchImage):
            before = self._tags.resolve(reference)
            if before != image:
                line = f"The image {reference.familiar()} already exists, renaming the old one with ID {before}"
                report(Progress(stream=f"{line} to empty string\n"))
        self._tags.set_tag(reference, image)

    def _link_parent(self, archived: ArchivedImage) -> None:
        parent = archived.parent
        if parent is None or not self._images.exists(parent):
            return
        above, below = self._images.get(parent).history, archived.config.history
        # Only what looks like one step more may claim to be a child: such a link keeps the parent from being deleted.
        if len(below) == len(above) + 1 and below[: len(above)] == above:
            self._images.set_parent(archived.config.image_id, parent)


class _Intakes:
    """The layers of one archive, from the first byte to the layer store. Leaving the `with` throws the rest away."""

    def __init__(self, layers: LayerStore, unpack: UnpackSpool, scratch: Path, report: Report | None) -> None:
        self._layers = layers
        self._unpack = unpack
        self._scratch = scratch
        self._report = report
        self._early = layers.can_stage_early
        self._pool = ThreadPoolExecutor(unpack.side_by_side, thread_name_prefix="load")
        self._intakes: dict[str, _Intake] = {}
        self._replaced: list[_Intake] = []
        self._committed: dict[DiffId, ChainId] = {}

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._intakes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        everything = [*self._intakes.values(), *self._replaced]
        for intake in everything:
            intake.abandon()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for intake in everything:
            intake.close()

    def begin(self, name: str, size_bytes: int) -> _Intake:
        """See `LayerSink`."""
        if name in self._intakes:
            self._replaced.append(self._intakes[name])
        spool = Spool(self._scratch)
        intake = _Intake(self._layers, spool, _Meter(self._report, name, size_bytes))
        self._intakes[name] = intake
        if self._early:
            intake.job = self._pool.submit(self._stage, intake)
        return intake

    def commit(self, name: str, index: int, diff_id: DiffId, parent: ChainId | None) -> None:
        """Make the layer that came in as `name` the child of `parent`, with one hold on it.

        Raises:
            DigestMismatch: it is not the layer that the config names.
        """
        intake = self._intakes.get(name)
        if diff_id in self._committed:
            # The same changes on top of something else: a layer of its own, as in Docker.
            register_copy(self._layers, self._committed[diff_id], parent)
            return
        if intake is None:
            raise InvalidManifest(f"invalid image archive: the layer {name[:200]!r} is not in it")
        layer = intake.commit(index, diff_id, parent)
        self._committed[diff_id] = layer

    def _stage(self, intake: _Intake) -> Unpacked:
        intake.staged = self._layers.stage(None)
        unpacked = self._unpack(intake.spool, intake.staged)
        intake.spool.close()
        return unpacked


class _Intake:
    """One layer on its way in."""

    def __init__(self, layers: LayerStore, spool: Spool, meter: _Meter) -> None:
        self._layers = layers
        self._meter = meter
        self.spool = spool
        self.staged: StagedLayer | None = None
        self.job: Future[Unpacked] | None = None

    def write(self, piece: memoryview) -> None:
        if self.job is not None and self.job.done():
            self.job.result()  # it ends before its input only by an error: no need to read on
        self.spool.write(piece)
        self._meter.advance(len(piece))

    def done(self) -> None:
        self.spool.done()
        self._meter.finish()

    def abandon(self) -> None:
        self.spool.abandon()

    def commit(self, index: int, diff_id: DiffId, parent: ChainId | None) -> ChainId:
        if self.job is None:
            with self.spool.from_start() as tar:
                layer = self._layers.register(tar, parent)
            if layer.diff_id != diff_id:
                self._layers.release(layer.chain_id)
                raise _other_layer(index, diff_id, layer.diff_id)
            return layer.chain_id
        unpacked = self.job.result()
        if unpacked.diff_id != diff_id or self.staged is None:
            raise _other_layer(index, diff_id, unpacked.diff_id)
        # From here on the store answers for the staged layer, whether it becomes one or not.
        staged, self.staged = self.staged, None
        return self._layers.commit(staged, parent, unpacked).chain_id

    def close(self) -> None:
        self.spool.close()
        if self.staged is not None:
            self._layers.discard(self.staged)
            self.staged = None


class _Meter:
    """Tells now and then how far a layer has come."""

    def __init__(self, report: Report | None, name: str, total: int) -> None:
        self._report = report
        self._label = _label(name)
        self._total = total
        self._current = 0
        self._told = -_REPORT_BYTES

    def advance(self, count: int) -> None:
        self._current += count
        if self._current - self._told >= _REPORT_BYTES:
            self._tell()

    def finish(self) -> None:
        if self._told != self._current:
            self._tell()

    def _tell(self) -> None:
        self._told = self._current
        if self._report is not None:
            self._report(Progress("Loading layer", id=self._label, current=self._current, total=self._total))


def _label(name: str) -> str:
    """What people see of a layer: the beginning of the id that its name in the archive holds."""
    parts = name.split("/")
    found = parts[-1] if parts[0] == "blobs" or len(parts) == 1 else parts[-2]
    return found[:12]


def _other_layer(index: int, expected: DiffId, found: DiffId) -> DigestMismatch:
    return DigestMismatch(
        f'invalid diffID for layer {index}: expected "{expected}", got "{found}"',
        hint="the archive was damaged or tampered with: this layer is not the one that its config names",
    )
