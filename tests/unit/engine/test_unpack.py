import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lamina.engine.unpack import SMALL_BYTES, Unpack
from lamina.errors import DigestMismatch, SizeMismatch, UnsafeArchive
from lamina.layers.pool import FileSlice, WorkerPool
from lamina.layers.store import LayerStore
from lamina.oci.digest import digest_of
from lamina.storage.mounting import Mounts
from lamina.storage.select import choose_driver
from lamina.workers import Workers
from tests.unit.changeset.tars import DIFF_1, FILE, LAYER_1, LAYER_2, make

pytestmark = pytest.mark.root

LARGE = make([(f"file{number}", FILE, 0o644, os.urandom(50_000)) for number in range(40)])


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    driver = choose_driver(tmp_path / "root", "overlay2", {})
    made = LayerStore(tmp_path / "root" / "layerdb", driver, Mounts(driver))
    made.load()
    return made


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as made:
        yield made


async def chunks(data: bytes, size: int = 30_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        await asyncio.sleep(0)
        yield data[at : at + size]


def run(store: LayerStore, pool: WorkerPool, act: Callable[[Unpack, Workers], Awaitable[object]]) -> None:
    async def inside() -> None:
        workers = Workers()
        try:
            await act(Unpack(store, pool, workers), workers)
        finally:
            workers.close()

    asyncio.run(inside())


def left(store: LayerStore) -> list[str]:
    return [str(path) for path in (store._directory / "tmp").iterdir()]


@pytest.mark.parametrize("tar", [LAYER_1, LARGE], ids=["in a thread", "in a worker"])
def test_an_archive_that_arrives_in_chunks_becomes_a_layer(store: LayerStore, pool: WorkerPool, tar: bytes) -> None:
    packed = gzip.compress(tar, 1)
    assert (len(packed) <= SMALL_BYTES) == (tar is LAYER_1)
    told: list[int] = []

    async def act(unpack: Unpack, workers: Workers) -> None:
        staged, done = await unpack(
            chunks(packed), expected_digest=digest_of(packed), expected_bytes=len(packed), progress=told.append
        )
        layer = await workers.call(store.commit, staged, None, done)
        assert layer.diff_id == digest_of(tar)

    run(store, pool, act)
    assert told[-1] == len(packed)
    assert told == sorted(told)


def test_layers_unpack_side_by_side_before_their_parents_are_there(store: LayerStore, pool: WorkerPool) -> None:
    async def act(unpack: Unpack, workers: Workers) -> None:
        upper, lower, _ = await asyncio.gather(unpack(chunks(LAYER_2)), unpack(chunks(LAYER_1)), unpack(chunks(LARGE)))
        first = await workers.call(store.commit, lower[0], None, lower[1])
        second = await workers.call(store.commit, upper[0], first.chain_id, upper[1])
        assert (first.diff_id, second.parent) == (DIFF_1, DIFF_1)

    run(store, pool, act)


def test_a_slice_of_a_file_is_read_by_the_worker(store: LayerStore, pool: WorkerPool, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"x" * 100 + LARGE)

    async def act(unpack: Unpack, workers: Workers) -> None:
        fd = os.open(tmp_path / "archive", os.O_RDONLY)
        try:
            staged, done = await unpack.from_file(FileSlice(fd, 100, len(LARGE)))
        finally:
            os.close(fd)
        assert done.diff_id == digest_of(LARGE)
        await workers.call(store.discard, staged)

    run(store, pool, act)
    assert left(store) == []


@pytest.mark.parametrize("tar", [LAYER_1, LARGE], ids=["in a thread", "in a worker"])
def test_a_failed_archive_leaves_nothing(store: LayerStore, pool: WorkerPool, tar: bytes) -> None:
    evil = make([("../x", FILE, 0o644, os.urandom(len(tar)))])

    async def act(unpack: Unpack, _: Workers) -> None:
        with pytest.raises(DigestMismatch):
            await unpack(chunks(tar), expected_digest=digest_of(b""), expected_bytes=len(tar))
        with pytest.raises(SizeMismatch):
            await unpack(chunks(tar), expected_bytes=len(tar) - 512)
        with pytest.raises(UnsafeArchive, match="leave the layer"):
            await unpack(chunks(evil), expected_bytes=len(evil))

    run(store, pool, act)
    assert left(store) == []


def test_what_the_source_raises_is_raised_and_nothing_is_left(store: LayerStore, pool: WorkerPool) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield LARGE[:100_000]
        raise ConnectionResetError("the network")

    async def act(unpack: Unpack, _: Workers) -> None:
        with pytest.raises(ConnectionResetError, match="the network"):
            await unpack(broken())

    run(store, pool, act)
    assert left(store) == []


def test_a_cancelled_unpacking_leaves_nothing(store: LayerStore, pool: WorkerPool) -> None:
    async def act(unpack: Unpack, _: Workers) -> None:
        arrived = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield LARGE[:200_000]
            arrived.set()
            await asyncio.Event().wait()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(one(unpack, endless()))
            await arrived.wait()
            task.cancel()

    run(store, pool, act)
    assert left(store) == []


async def one(unpack: Unpack, source: AsyncIterator[bytes]) -> None:
    await unpack(source)
