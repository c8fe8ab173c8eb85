"""Image layers from one store into another: each goes out as its own tar and comes in again (blocking).

The tar is the one the layer came as, to the byte, and its digest is compared on the way out and on the way in. So the
new driver gets whiteouts in its own form, and nothing can differ without being found.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import DataLoss, LaminaError
from lamina.layers.pool import PIPE_BYTES, TarJob, UnpackJob, WorkerPool
from lamina.layers.record import Layer
from lamina.layers.store import LayerStore, StagedLayer
from lamina.layers.unpack import Unpacked
from lamina.migration.progress import Progress
from lamina.oci.digest import ChainId, hex_of

SHORT = 12


@dataclass(frozen=True, slots=True)
class Copied:
    """How many layers were copied now, and how many had been before."""

    copied: int
    found: int


def copy_layers(old: LayerStore, new: LayerStore, pool: WorkerPool, progress: Progress) -> Copied:
    """Make every layer of `old` exist in `new`, and hold it there; layers that only `new` has are removed.

    What is committed stays when this fails or is killed, and is found the next time.

    Raises:
        DataLoss: a layer is damaged; the message names it.
        StorageFull: no room.
    """
    layers = _parents_first(old.layers())
    found = sum(new.exists(layer.chain_id) for layer in layers)
    copying = _Copying(old, new, pool, progress)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="layer") as threads:
        for layer in layers:
            copying.done[layer.chain_id] = threads.submit(copying.one, layer)
        try:
            for future in copying.done.values():
                future.result()
        except BaseException:
            copying.is_stopped = True
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    new.remove_unheld()
    return Copied(len(layers) - found, found)


def _parents_first(layers: list[Layer]) -> list[Layer]:
    """Level by level, so that chains which share nothing are copied side by side."""
    by_chain = {layer.chain_id: layer for layer in layers}
    depths: dict[ChainId, int] = {}

    def depth(layer: Layer) -> int:
        chain: list[Layer] = []
        at: Layer | None = layer
        while at is not None and at.chain_id not in depths:
            chain.append(at)
            at = by_chain[at.parent] if at.parent is not None else None
        base = depths[at.chain_id] if at is not None else 0
        for number, member in enumerate(reversed(chain), base + 1):
            depths[member.chain_id] = number
        return depths[layer.chain_id]

    return sorted(layers, key=lambda layer: (depth(layer), -layer.size_bytes))


class _Copying:
    """One copying of all layers. `done` has a future for each layer, parents before children."""

    def __init__(self, old: LayerStore, new: LayerStore, pool: WorkerPool, progress: Progress) -> None:
        self._old, self._new, self._pool, self._progress = old, new, pool, progress
        self.done: dict[ChainId, Future[None]] = {}
        self.is_stopped = False

    def one(self, layer: Layer) -> None:
        """Copy one layer, unless it is there."""
        if self.is_stopped:
            return
        if self._new.exists(layer.chain_id):
            self._new.hold(layer.chain_id)
            return
        name = hex_of(layer.chain_id)[:SHORT]
        self._progress.begin(name, layer.size_bytes)
        early = self._new.can_stage_early
        if not early:
            self._wait_for_parent(layer)
        staged = self._new.stage(None if early else layer.parent)
        try:
            unpacked = self._through(layer, staged, lambda done: self._progress.advance(name, done))
            if early:
                self._wait_for_parent(layer)
        except BaseException:
            self._new.discard(staged)
            raise
        self._new.commit(staged, layer.parent, unpacked)
        self._progress.end(name, "copied")

    def _wait_for_parent(self, layer: Layer) -> None:
        """Parents were given out first, so their threads are never behind this one."""
        if layer.parent is not None:
            self.done[layer.parent].result()

    def _through(self, layer: Layer, staged: StagedLayer, advance: Callable[[int], None]) -> Unpacked:
        """One worker puts the tar together, another one unpacks it; the bytes pass here without being looked at."""
        try:
            with self._old.reading(layer.chain_id) as (tar_split, directory):
                unpacked = self._pumped(layer, tar_split, directory, staged=staged, advance=advance)
                _keep_framing(tar_split, staged.target.tar_split)
        except DataLoss as error:
            raise DataLoss(
                f"the layer {layer.chain_id} cannot be moved: {error}",
                hint="bring its image anew (lamina rmi, lamina pull) with the old driver, then go on",
            ) from error
        return unpacked

    def _pumped(
        self, layer: Layer, tar_split: Path, directory: Path, *, staged: StagedLayer, advance: Callable[[int], None]
    ) -> Unpacked:
        read_fd, write_fd = os.pipe()
        try:
            try:
                fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
                packing = self._pool.write_tar(tar_split, directory, layer.diff_id, write_fd)
            finally:
                os.close(write_fd)
            try:
                unpacking = self._pool.unpack(staged.target, expected_digest=layer.diff_id)
            except BaseException:
                packing.kill()
                raise
            try:
                _pump(read_fd, unpacking, advance)
            except BaseException:
                packing.kill()
                unpacking.kill()
                raise
        finally:
            os.close(read_fd)
        return _both(packing, unpacking)


def _pump(read_fd: int, unpacking: UnpackJob, advance: Callable[[int], None]) -> None:
    os.set_blocking(unpacking.stdin_fd, True)
    try:
        while moved := os.splice(read_fd, unpacking.stdin_fd, PIPE_BYTES):
            advance(moved)
    except BrokenPipeError:
        return  # its result says why it stopped to read
    unpacking.close_stdin()


def _both(packing: TarJob, unpacking: UnpackJob) -> Unpacked:
    """The results; what went wrong where the bytes come from explains what went wrong where they go."""
    try:
        packing.result()
    except (LaminaError, OSError) as error:
        failure = _failure(unpacking)
        if failure is None or isinstance(error, DataLoss):
            raise
        raise failure from error
    return unpacking.result()


def _failure(unpacking: UnpackJob) -> Exception | None:
    try:
        unpacking.result()
    except (LaminaError, OSError) as error:
        return error
    return None


def _keep_framing(old: Path, new: Path) -> None:
    """The record of the framing stays to the byte, whoever wrote it: a gzip stream can be written in many ways."""
    with old.open("rb") as source, new.open("r+b") as target:
        target.truncate()
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
