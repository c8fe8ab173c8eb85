#!/usr/bin/env python3
"""How fast layers go in and out: a synthetic image of about 700 MB and 28,000 files in four layers.

    scripts/bench_unpack.py [--directory DIR] [--files N] [--megabytes N] [--driver overlay2|vfs]

Needs root. Everything is made in a temporary directory, which is removed at the end.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import resource
import shutil
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from lamina.changeset.compression import gzipped
from lamina.layers.pool import FileSlice, WorkerPool
from lamina.layers.store import LayerStore
from lamina.storage.mounting import Mounts
from lamina.storage.select import choose_driver

LAYERS = 4


def content(rng: random.Random, pool: bytes, size: int) -> bytes:
    """Bytes that compress about as well as programs do: pieces of one pool, with noise between."""
    parts: list[bytes] = []
    left = size
    while left > 0:
        count = min(left, rng.randrange(64, 8192))
        if rng.random() < 0.3:
            parts.append(rng.randbytes(count))
        else:
            at = rng.randrange(len(pool) - count)
            parts.append(pool[at : at + count])
        left -= count
    return b"".join(parts)


def make_layer(path: Path, number: int, files: int, size: int) -> None:
    rng = random.Random(number)
    words = [rng.randbytes(rng.randrange(3, 12)).hex().encode() for _ in range(2000)]
    pool = b" ".join(rng.choice(words) for _ in range(200_000))
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        made: set[str] = set()
        left = size
        for index in range(files):
            directory = f"usr/lib{number}/package{index // 40}/part{index // 8 % 5}"
            for depth in range(1, directory.count("/") + 2):
                parent = "/".join(directory.split("/")[:depth])
                if parent not in made:
                    made.add(parent)
                    info = tarfile.TarInfo(parent)
                    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
                    tar.addfile(info)
            each = min(left, int(rng.paretovariate(1.1) * size / files / 6))
            left -= each
            if index == files - 1:
                each += left
            info = tarfile.TarInfo(f"{directory}/file{index}.py")
            info.size, info.mode, info.mtime = each, 0o644, 1_700_000_000 + index
            tar.addfile(info, io.BytesIO(content(rng, pool, each)))


def make_image(directory: Path, files: int, megabytes: int) -> list[tuple[Path, Path]]:
    made = []
    for number in range(LAYERS):
        plain, packed = directory / f"{number}.tar", directory / f"{number}.tar.gz"
        make_layer(plain, number, files // LAYERS, (megabytes << 20) // LAYERS)
        with open(plain, "rb") as file, open(packed, "wb") as out:
            for chunk in gzipped(iter(lambda: file.read(1 << 20), b""), 3):
                out.write(chunk)
        made.append((plain, packed))
    return made


class Bench:
    def __init__(self, directory: Path, driver: str, image: list[tuple[Path, Path]]) -> None:
        self.directory, self.driver, self.image = directory, driver, image
        self.rows: list[tuple[str, float, float, int]] = []
        self.plain_bytes = sum(plain.stat().st_size for plain, _ in image)

    def measure(self, name: str, work) -> None:
        os.sync()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        start = time.perf_counter()
        work()
        wall = time.perf_counter() - start
        busy = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
        self.rows.append((name, wall, busy, self.plain_bytes))
        print(f"{name:42} {wall:7.2f} s {self.plain_bytes / wall / 1e6:8.0f} MB/s", flush=True)

    def store(self, name: str) -> LayerStore:
        root = self.directory / name
        driver = choose_driver(root, self.driver, {})
        store = LayerStore(root / "image" / driver.name / "layerdb", driver, Mounts(driver))
        store.load()
        return store

    def one_thread(self) -> None:
        store, parent = self.store("one"), None
        for _, packed in self.image:
            with open(packed, "rb", buffering=0) as stream:
                parent = store.register(stream, parent).chain_id

    def in_workers(self, pool: WorkerPool, name: str, which: int) -> LayerStore:
        store = self.store(name)
        parent, jobs, slots = None, [], threading.BoundedSemaphore(pool.size)
        for paths in self.image:
            slots.acquire()
            staged = store.stage(None if store.can_stage_early else parent)
            with open(paths[which], "rb") as file:
                job = pool.unpack(staged.target, FileSlice(file.fileno()))
            done: list = []

            def finish(job=job, done=done) -> None:
                done.append(job.result())
                slots.release()

            thread = threading.Thread(target=finish)
            thread.start()
            jobs.append((staged, thread, done))
            if not store.can_stage_early:
                thread.join()
                parent = store.commit(staged, parent, done[0]).chain_id
        if store.can_stage_early:
            for staged, thread, done in jobs:
                thread.join()
                parent = store.commit(staged, parent, done[0]).chain_id
        return store

    def out(self, pool: WorkerPool, store: LayerStore, target: str) -> None:
        with open(target, "wb", buffering=0) as sink:
            for layer in order(store):
                with store.reading(layer.chain_id) as (split, directory):
                    read_fd, write_fd = os.pipe()
                    job = pool.write_tar(split, directory, layer.diff_id, write_fd)
                    os.close(write_fd)
                    with open(read_fd, "rb", buffering=0) as stream:
                        while chunk := stream.read(1 << 20):
                            sink.write(chunk)
                    job.result()


def order(store: LayerStore):
    by_parent = {layer.parent: layer for layer in store.layers()}
    at = by_parent.get(None)
    while at is not None:
        yield at
        at = by_parent.get(at.chain_id)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--directory", type=Path)
    options.add_argument("--files", type=int, default=28_000)
    options.add_argument("--megabytes", type=int, default=700)
    options.add_argument("--driver", default="overlay2")
    options.add_argument("--image", type=Path, help="keep the made image here and use it again")
    chosen = options.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-unpack-", dir=chosen.directory))
    try:
        run(chosen, directory)
    finally:
        shutil.rmtree(directory)


def run(chosen: argparse.Namespace, directory: Path) -> None:
    place = chosen.image or directory / "image"
    if place.is_dir():
        image = [(place / f"{number}.tar", place / f"{number}.tar.gz") for number in range(LAYERS)]
    else:
        place.mkdir(parents=True)
        image = make_image(place, chosen.files, chosen.megabytes)
    packed = sum(path.stat().st_size for _, path in image)
    bench = Bench(directory, chosen.driver, image)
    print(
        f"{bench.plain_bytes / 1e6:.0f} MB plain, {packed / 1e6:.0f} MB gzip, {LAYERS} layers, {os.cpu_count()} cores"
    )
    bench.measure("gzip in, one process", bench.one_thread)
    with WorkerPool() as pool:
        bench.measure("gzip in, worker processes", lambda: bench.in_workers(pool, "gzip", 1))
        kept: list[LayerStore] = []
        bench.measure("plain in, worker processes", lambda: kept.append(bench.in_workers(pool, "plain", 0)))
        bench.measure("tar out through a worker, to a file", lambda: bench.out(pool, kept[0], str(directory / "out")))
        bench.measure("tar out through a worker, to nothing", lambda: bench.out(pool, kept[0], "/dev/null"))


if __name__ == "__main__":
    main()
