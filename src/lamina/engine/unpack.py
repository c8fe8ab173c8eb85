"""Bring a layer archive into the store: stage, unpack in a worker process, commit (async).

Small archives are unpacked in a thread of the daemon, which costs less than starting a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from lamina.changeset.compression import StreamLimits
from lamina.errors import UnsafeArchive
from lamina.layers.pool import FileSlice, TarJob, UnpackJob, WorkerPool
from lamina.layers.store import LayerStore, StagedLayer
from lamina.layers.unpack import Limits, Unpacked, unpack
from lamina.oci.digest import ChainId, Digest
from lamina.workers import Workers

SMALL_BYTES = 64 << 10
_SMALL_LIMITS = Limits(stream=StreamLimits(output_bytes=4 << 20))


@dataclass(frozen=True, slots=True)
class _Announced:
    """What is known of a layer archive before it is read; checked while it is."""

    digest: Digest | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Unpack:
    """Fill a new layer from an archive. Several run side by side, at most one per processor and one more."""

    store: LayerStore
    pool: WorkerPool
    workers: Workers
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_slots", asyncio.Semaphore(self.pool.size))

    async def __call__(
        self,
        chunks: AsyncIterator[bytes],
        parent: ChainId | None = None,
        *,
        expected_digest: Digest | None = None,
        expected_bytes: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[StagedLayer, Unpacked]:
        """Unpack an archive that arrives in chunks (compressed or not).

        Where `store.can_stage_early` is false `parent` must be the layer below, already committed; else it may be left
        out until `commit`. `progress` is told the bytes taken so far. On error nothing stays behind.

        Raises:
            DigestMismatch, SizeMismatch, DataLoss, InvalidArgument, UnsafeArchive, StorageFull, ProcessFailed; and what
            `chunks` raises.
        """
        announced = _Announced(expected_digest, expected_bytes)
        async with self._slots:
            head = await self._small(chunks, announced)
            if head is not None:
                done = await self._in_thread(head, parent, announced)
                if done is not None:
                    if progress is not None:
                        progress(len(head))
                    return done
            source = chunks if head is None else _once(head)
            async with self._staged(parent) as staged:
                job = await self._started(staged, None, announced)
                return staged, await self._run(job, source, progress)

    async def from_file(
        self,
        source: FileSlice,
        parent: ChainId | None = None,
        *,
        expected_digest: Digest | None = None,
        expected_bytes: int | None = None,
    ) -> tuple[StagedLayer, Unpacked]:
        """Unpack an archive that lies in an open file: the worker reads it itself. Else as calling."""
        async with self._slots, self._staged(parent) as staged:
            job = await self._started(staged, source, _Announced(expected_digest, expected_bytes))
            return staged, await self._run(job, None, None)

    async def _small(self, chunks: AsyncIterator[bytes], announced: _Announced) -> bytes | None:
        """All of the archive, if it is announced to be small."""
        if announced.size_bytes is None or announced.size_bytes > SMALL_BYTES:
            return None
        parts: list[bytes] = []
        total = 0
        async for chunk in chunks:
            parts.append(chunk)
            total += len(chunk)
            if total > announced.size_bytes:
                break  # unpacking will find that it is too long
        return b"".join(parts)

    async def _in_thread(
        self, archive: bytes, parent: ChainId | None, announced: _Announced
    ) -> tuple[StagedLayer, Unpacked] | None:
        """Unpack in this process; None when it turns out to be large."""
        try:
            async with self._staged(parent) as staged:
                done = await self.workers.call(
                    unpack,
                    io.BytesIO(archive),
                    staged.target,
                    expected_digest=announced.digest,
                    expected_bytes=announced.size_bytes,
                    limits=_SMALL_LIMITS,
                )
                return staged, done
        except UnsafeArchive:
            return None  # once more in a worker, with the ordinary limits; it tells what is wrong

    @contextlib.asynccontextmanager
    async def _staged(self, parent: ChainId | None) -> AsyncIterator[StagedLayer]:
        """A staged layer that is thrown away if the block fails."""
        staged = await self.workers.obtain(lambda: self.store.stage(parent), self.store.discard)
        try:
            yield staged
        except BaseException:
            await asyncio.shield(self.workers.call(self.store.discard, staged))
            raise

    async def _started(self, staged: StagedLayer, source: FileSlice | None, announced: _Announced) -> UnpackJob:
        return await self.workers.obtain(
            lambda: self.pool.unpack(
                staged.target, source, expected_digest=announced.digest, expected_bytes=announced.size_bytes
            ),
            UnpackJob.kill,
        )

    async def _run(
        self, job: UnpackJob, chunks: AsyncIterator[bytes] | None, progress: Callable[[int], None] | None
    ) -> Unpacked:
        try:
            if chunks is not None:
                await _feed(job, chunks, progress)
            await finished(job)
            return await self.workers.call(job.result)
        except BaseException:
            await asyncio.shield(self.workers.call(job.kill))
            raise


async def finished(job: UnpackJob | TarJob) -> None:
    """Wait until the result is there."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def look() -> None:
        if not done.done() and job.ready():
            done.set_result(None)

    fd = job.fileno()
    loop.add_reader(fd, look)
    try:
        await done
    finally:
        loop.remove_reader(fd)


async def _feed(job: UnpackJob, chunks: AsyncIterator[bytes], progress: Callable[[int], None] | None) -> None:
    """Write the chunks into the worker's pipe. Stops early when the worker does: its result will say why."""
    taken = 0
    async for chunk in chunks:
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(job.stdin_fd, view) :]
            except BlockingIOError:
                await _writable(job.stdin_fd)
            except BrokenPipeError:
                return
        taken += len(chunk)
        if progress is not None:
            progress(taken)
    job.close_stdin()


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def look() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_writer(fd, look)
    try:
        await done
    finally:
        loop.remove_writer(fd)


async def _once(archive: bytes) -> AsyncIterator[bytes]:
    yield archive
