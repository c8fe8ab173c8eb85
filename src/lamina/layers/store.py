"""The layer store: layers by chain id, the way in and out as tar, and writable layers on top (blocking, thread-safe).

A chain directory in `layerdb/sha256` is the statement that a layer exists; it appears by one rename, after the layer's
data is on disk. Everything before that is a write-set in `layerdb/tmp`, which names its driver layer, so that the next
start can throw both away. Deleting goes the other way: the record is renamed to `…-removing` first, then the data goes.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lamina.errors import Conflict, CorruptRecord, InvalidArgument, LaminaError, LayerInUse, NoSuchLayer
from lamina.ids import CacheId, new_cache_id, random_id
from lamina.kernel.durable import fsync_dir, make_dirs
from lamina.layers import assemble, record, rwtar
from lamina.layers.pool import WorkerPool, write_tar_through
from lamina.layers.record import TAR_SPLIT, Layer, RwLayer
from lamina.layers.retain import Holds
from lamina.layers.rw import RwLayers, keeps_upper
from lamina.layers.unpack import Unpacked, UnpackTarget, unpack
from lamina.oci.digest import ChainId, Digest, chain_id, hex_of
from lamina.rootfs.diff import Change
from lamina.rootfs.remove import remove_tree
from lamina.storage.driver import Rebases, StorageDriver, Usage, WhiteoutDialect
from lamina.storage.mounting import Mounts

MAX_DEPTH = 500
"""Layers in a chain. dockerd stops at 125, because overlay does; here what is below that becomes a merged layer."""

_LARGE_BYTES = 4 << 20
"""From here on the daemon's interpreter lock is worth a worker process."""

_CHAIN = re.compile(r"[0-9a-f]{64}")
_REMOVING = re.compile(r"([0-9a-f]{64})-[0-9a-f]+-removing")


@dataclass(frozen=True, slots=True)
class StagedLayer:
    """A layer that is being filled: its write-set and its driver layer. `target` is where `unpack` puts it."""

    cache_id: CacheId
    write_set: Path
    parent: ChainId | None
    target: UnpackTarget
    is_mounted: bool


class LayerStore:
    """Registers layers, gives them out, counts who holds them. `directory` is `<root>/image/<driver>/layerdb`."""

    def __init__(
        self,
        directory: Path,
        driver: StorageDriver,
        mounts: Mounts,
        pool: WorkerPool | None = None,
        *,
        max_depth: int = MAX_DEPTH,
    ) -> None:
        """With a `pool` the tars of large layers are put together by its workers."""
        self._max_depth = max_depth
        self._directory = directory
        self._driver = driver
        self._mounts = mounts
        self._pool = pool
        self._lock = threading.RLock()
        self._layers: dict[ChainId, Layer] = {}
        self._depths: dict[ChainId, int] = {}
        self._holds = Holds()
        self._rw = RwLayers(directory / "mounts", driver, mounts)
        self._upper = keeps_upper(driver)
        # Through a mount, what a layer deletes can only be deleted where its parent shows it.
        self.can_stage_early = isinstance(driver, Rebases) and self._upper is not None

    # --- reading what is there -------------------------------------------------------------------------------------

    def load(self) -> list[str]:
        """Read the records, and clean what a crash left; the warnings are for the log.

        Broken chain directories are left in place and count as absent.
        """
        make_dirs(self._directory)
        warnings: list[str] = []
        with self._lock:
            self._layers.clear()
            self._depths.clear()
            self._holds = Holds()
            self._load_layers(warnings)
            self._rw.load(warnings)
            for parent in self._rw.parents():
                if parent in self._layers:
                    self._holds.take(parent)
            self._sweep(warnings)
        return warnings

    def get(self, chain: ChainId) -> Layer:
        """Raises NoSuchLayer."""
        with self._lock:
            found = self._layers.get(chain)
        if found is None:
            raise NoSuchLayer(f"layer does not exist: {chain}")
        return found

    def exists(self, chain: ChainId) -> bool:
        with self._lock:
            return chain in self._layers

    def layers(self) -> list[Layer]:
        with self._lock:
            return list(self._layers.values())

    # --- layers in -------------------------------------------------------------------------------------------------

    def stage(self, parent: ChainId | None = None) -> StagedLayer:
        """Begin a layer: a write-set and an empty driver layer to unpack into.

        When `can_stage_early`, `parent` None also means "not known yet": it is told at `commit`.
        """
        below = self.get(parent).cache_id if parent is not None else None
        cache_id = new_cache_id()
        temporary = self._directory / "tmp"
        make_dirs(temporary, 0o755)
        write_set = temporary / f"write-set-{int.from_bytes(os.urandom(4), 'big')}"
        write_set.mkdir(0o700)
        with contextlib.ExitStack() as undo:
            undo.callback(remove_tree, write_set)
            record.write_cache_id(write_set, cache_id)
            self._driver.create(cache_id, below)
            undo.callback(self._driver.remove, cache_id)
            if self._upper is not None:
                directory, dialect = self._upper.upper(cache_id), self._upper.dialect
            else:
                directory, dialect = self._mounts.acquire(cache_id), WhiteoutDialect.NONE
            undo.pop_all()
        target = UnpackTarget(directory, write_set / TAR_SPLIT, dialect)
        return StagedLayer(cache_id, write_set, parent, target, is_mounted=self._upper is None)

    def commit(self, staged: StagedLayer, parent: ChainId | None, unpacked: Unpacked) -> Layer:
        """Make a filled layer exist, durably, and take one hold on it.

        If the same layer exists already, that one is held and the new copy thrown away. On error the staged layer is
        thrown away too.

        Raises:
            InvalidArgument: the chain would be deeper than `max_depth` layers.
            NoSuchLayer: no such parent.
        """
        chain = chain_id(parent, unpacked.diff_id)
        existing = self._hold_existing(chain)
        if existing is not None:
            self.discard(staged)
            return existing
        layer = Layer(chain, unpacked.diff_id, parent, staged.cache_id, unpacked.layer_bytes)
        try:
            self._finish(staged, layer)
            with self._lock:
                existing = self._hold_existing(chain)
                if existing is None:
                    self._publish(staged, layer)
                    return layer
        except BaseException:
            self.discard(staged)
            raise
        self.discard(staged)
        return existing

    def discard(self, staged: StagedLayer) -> None:
        """Throw a staged layer away. Twice is fine."""
        if staged.is_mounted:
            with contextlib.suppress(Conflict):
                self._mounts.release(staged.cache_id)
        self._driver.remove(staged.cache_id)
        remove_tree(staged.write_set)

    def register(self, tar: BinaryIO, parent: ChainId | None) -> Layer:
        """Unpack a layer archive (compressed or not) in this thread and make it a layer; takes one hold."""
        staged = self.stage(parent)
        try:
            unpacked = unpack(tar, staged.target)
        except BaseException:
            self.discard(staged)
            raise
        return self.commit(staged, parent, unpacked)

    # --- holds -----------------------------------------------------------------------------------------------------

    def hold(self, chain: ChainId) -> None:
        """Take one hold. Raises NoSuchLayer."""
        with self._lock:
            self.get(chain)
            self._holds.take(chain)

    def release(self, chain: ChainId) -> tuple[ChainId, ...]:
        """Give one hold back; layers that nobody holds any more are removed, top first. Returns them.

        Raises:
            NoSuchLayer: no such layer. Conflict: nobody holds it.
        """
        going: list[tuple[Layer, Path | None]] = []
        with self._lock:
            at: ChainId | None = chain
            while at is not None:
                layer = self.get(at)
                if not self._holds.give(at):
                    break
                del self._layers[at]
                self._depths.pop(at, None)
                going.append((layer, self._rename_away(layer)))
                at = layer.parent
        for layer, removing in going:
            self._driver.remove(layer.cache_id)
            if removing is not None:
                remove_tree(removing)
        return tuple(layer.chain_id for layer, _ in going)

    def remove_unheld(self) -> tuple[ChainId, ...]:
        """Remove layers that no image, writable layer or child holds: a crash before an image was recorded leaves them.

        Call it at start, when every image and writable layer has taken its holds.
        """
        with self._lock:
            unheld = [chain for chain in self._layers if self._holds.count(chain) == 0]
            for chain in unheld:
                self._holds.take(chain)
        return tuple(gone for chain in unheld for gone in self.release(chain))

    # --- layers out ------------------------------------------------------------------------------------------------

    def write_tar(self, chain: ChainId, out: assemble.Writable) -> int:
        """Write the tar exactly as it came in; the number of bytes.

        Raises:
            DataLoss: a file or the record was changed or damaged.
        """
        layer = self.get(chain)
        with self.reading(chain) as (tar_split, directory):
            if self._pool is not None and layer.size_bytes > _LARGE_BYTES:
                return write_tar_through(self._pool, tar_split, directory, layer.diff_id, out)
            return assemble.write_tar(tar_split, directory, layer.diff_id, out)

    def tar_bytes(self, chain: ChainId) -> int:
        """Length of the tar, from the record alone."""
        return assemble.tar_bytes(self._chain_directory(self.get(chain).chain_id) / TAR_SPLIT)

    @contextlib.contextmanager
    def reading(self, chain: ChainId) -> Iterator[tuple[Path, Path]]:
        """The tar-split and the directory with the layer's files, for as long as the `with` lasts."""
        layer = self.get(chain)
        tar_split = self._chain_directory(chain) / TAR_SPLIT
        if self._upper is not None:
            yield tar_split, self._upper.upper(layer.cache_id)
            return
        with self._mounts.mounted(layer.cache_id) as tree:
            yield tar_split, tree

    # --- writable layers -------------------------------------------------------------------------------------------

    def create_rw(
        self,
        name: str,
        parent: ChainId | None,
        *,
        prepare: Callable[[Path], None] | None,
        limit_bytes: int | None = None,
        alike: Hashable = None,
    ) -> RwLayer:
        """Make a writable layer on `parent` (None: on nothing), which it holds.

        With `prepare` an init layer comes between; it is filled by `prepare`, called with its mounted tree. Equal
        values of `alike` promise that `prepare` does the same on the same parent and nothing else: from the second
        time on its work may be copied instead of calling it.

        Raises:
            AlreadyExists: the name is taken. NoSuchLayer: no such parent. Unsupported: the driver cannot limit sizes.
        """
        below: tuple[ChainId, CacheId] | None = None
        with self._lock:
            if parent is not None:
                below = (parent, self.get(parent).cache_id)
                self._holds.take(parent)
        try:
            return self._rw.create(name, below, prepare, limit_bytes=limit_bytes, alike=alike)
        except BaseException:
            if parent is not None:
                self.release(parent)
            raise

    def rw(self, name: str) -> RwLayer:
        """Raises NotFound."""
        return self._rw.get(name)

    def rw_names(self) -> list[str]:
        return self._rw.names()

    def remove_rw(self, name: str) -> tuple[ChainId, ...]:
        """Remove a writable layer and its hold on the chain; the layers that went away with it. Again is fine."""
        layer = self._rw.remove(name)
        if layer is None or layer.parent is None or not self.exists(layer.parent):
            return ()
        return self.release(layer.parent)

    def remove_unfinished_rw(self, name: str) -> tuple[ChainId, ...]:
        """After a restart: as `remove_rw`, for a layer that the daemon before was killed over and may have mounted."""
        self._rw.drop_mount(name)
        return self.remove_rw(name)

    def mount_rw(self, name: str) -> Path:
        """Take one use of the mounted root; `unmount_rw` gives it back."""
        return self._rw.mount(name)

    def unmount_rw(self, name: str) -> None:
        self._rw.unmount(name)

    def rw_usage(self, name: str) -> Usage:
        """What was written into the layer."""
        return self._rw.usage(name)

    def rw_changes(self, name: str) -> list[Change]:
        """What `docker diff` shows."""
        return self._rw.changes(name, self._below(name))

    def rw_tar(self, name: str, out: rwtar.Writable) -> None:
        """The changes as a layer tar, with the headers dockerd writes."""
        self._rw.write_diff(name, self._below(name), out)

    def rw_tree_tar(self, name: str, out: rwtar.Writable) -> None:
        """The whole root as a tar (`docker export`)."""
        self._rw.write_tree(name, out)

    def register_rw(self, name: str) -> Layer:
        """Register the changes of a writable layer as a new layer on its parent (`docker commit`); takes one hold."""
        with self._rw.kept(name) as layer:
            return self._register_rw(name, layer)

    def _register_rw(self, name: str, layer: RwLayer) -> Layer:
        read_fd, write_fd = os.pipe()
        failures: list[BaseException] = []

        def produce() -> None:
            try:
                with open(write_fd, "wb", buffering=1 << 18) as out:
                    self.rw_tar(name, out)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                failures.append(error)

        thread = threading.Thread(target=produce, name="diff")
        thread.start()
        try:
            with open(read_fd, "rb", buffering=0) as stream:
                registered = self.register(stream, layer.parent)
        except LaminaError:
            thread.join()
            if failures and not isinstance(failures[0], BrokenPipeError):
                raise failures[0] from None
            raise
        thread.join()
        if failures:
            self.release(registered.chain_id)
            raise failures[0]
        return registered

    # --- inside ----------------------------------------------------------------------------------------------------

    def _below(self, name: str) -> CacheId | None:
        parent = self._rw.get(name).parent
        return self.get(parent).cache_id if parent is not None else None

    def _chain_directory(self, chain: ChainId) -> Path:
        return self._directory / "sha256" / hex_of(chain)

    def _hold_existing(self, chain: ChainId) -> Layer | None:
        with self._lock:
            found = self._layers.get(chain)
            if found is not None:
                self._holds.take(chain)
            return found

    def _finish(self, staged: StagedLayer, layer: Layer) -> None:
        """Everything that must be on disk before the record says that the layer exists."""
        if layer.parent is not None:
            below = self.get(layer.parent)
            if self._depth(layer.parent) >= self._max_depth:
                raise InvalidArgument("max depth exceeded")
            if staged.parent is None:
                self._rebase(staged, below)
        if staged.parent is not None and staged.parent != layer.parent:
            raise Conflict("a layer was staged on another parent than it is committed on")
        if staged.is_mounted:
            self._mounts.release(staged.cache_id)
        self._driver.seal(staged.cache_id)
        record.write_layer(staged.write_set, layer)

    def _rebase(self, staged: StagedLayer, below: Layer) -> None:
        if not isinstance(self._driver, Rebases):
            raise Conflict(f"with {self._driver.name} a layer must be staged on its parent")
        self._driver.rebase(staged.cache_id, below.cache_id)

    def _publish(self, staged: StagedLayer, layer: Layer) -> None:
        """The moment the layer begins to exist; the lock is held."""
        if layer.parent is not None:
            self.get(layer.parent)
        place = self._chain_directory(layer.chain_id)
        make_dirs(place.parent, 0o755)
        if place.exists():
            # A broken record, or load() would have found it: next start throws it away with its driver layer.
            os.rename(place, self._directory / "tmp" / f"write-set-{int.from_bytes(os.urandom(4), 'big')}")
        os.rename(staged.write_set, place)
        fsync_dir(place.parent)
        self._add(layer)
        self._holds.take(layer.chain_id)

    def _add(self, layer: Layer) -> None:
        self._layers[layer.chain_id] = layer
        self._depths[layer.chain_id] = 1
        if layer.parent is not None:
            self._depths[layer.chain_id] += self._depth(layer.parent)
            self._holds.take(layer.parent)

    def _depth(self, chain: ChainId) -> int:
        with self._lock:
            return self._depths[chain]

    def _rename_away(self, layer: Layer) -> Path | None:
        place = self._chain_directory(layer.chain_id)
        removing = place.with_name(f"{place.name}-{random_id()}-removing")
        try:
            os.rename(place, removing)
        except FileNotFoundError:
            return None
        return removing

    def _load_layers(self, warnings: list[str]) -> None:
        found: dict[ChainId, Layer] = {}
        place = self._directory / "sha256"
        present = self._driver.cache_ids()
        for name in sorted(os.listdir(place)) if place.is_dir() else ():
            if not _CHAIN.fullmatch(name):
                continue
            try:
                layer = record.read_layer(place / name, ChainId(Digest(f"sha256:{name}")))
                if chain_id(layer.parent, layer.diff_id) != layer.chain_id:
                    raise CorruptRecord(f"layer record {place / name} does not belong to its name")
                if layer.cache_id not in present:
                    raise CorruptRecord(
                        f"layer record {place / name} names the cache id {layer.cache_id}, which is gone"
                    )
            except CorruptRecord as error:
                warnings.append(f"{error}: the layer counts as absent")
                continue
            found[layer.chain_id] = layer
        for chain in found:
            self._load_chain(chain, found, warnings)

    def _load_chain(self, chain: ChainId, found: dict[ChainId, Layer], warnings: list[str]) -> None:
        """Add a layer after its parents."""
        stack: list[Layer] = []
        at: ChainId | None = chain
        while at is not None and at not in self._layers:
            layer = found.get(at)
            if layer is None:
                warnings.append(f"the layer {chain} counts as absent: the layer {at} below it is missing")
                return
            stack.append(layer)
            at = layer.parent
        for layer in reversed(stack):
            self._driver.seal(layer.cache_id, durable=False)
            self._add(layer)

    def _sweep(self, warnings: list[str]) -> None:
        """Finish removals and throw away what was never committed."""
        used: set[CacheId] = {layer.cache_id for layer in self._layers.values()} | self._rw.cache_ids()
        for place in _listed(self._directory / "sha256"):
            if _REMOVING.fullmatch(place.name):
                self._throw_away(place, used, warnings)
        for place in _listed(self._directory / "tmp"):
            if place.name.startswith("write-set-"):
                self._throw_away(place, used, warnings)

    def _throw_away(self, place: Path, used: Collection[CacheId], warnings: list[str]) -> None:
        try:
            cache_id = record.read_cache_id(place)
        except CorruptRecord:
            cache_id = None
        if cache_id is not None and cache_id not in used:
            try:
                self._driver.remove(cache_id)
            except LayerInUse as error:
                warnings.append(f"a removal cannot be finished: {error}")
                return
        remove_tree(place)


def _listed(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.is_dir() else []
