"""Archives that a real dockerd writes and reads: the image stays the same image both ways."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.layers.pool import WorkerPool
from tests.e2e.engines import Engine
from tests.unit.images.stores import KNOWN_IMAGE, Real, docker_archive, known_layers


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Engine]:
    engine = Engine(kind="dockerd")
    try:
        yield engine.start()
    finally:
        engine.destroy()


@pytest.fixture(params=["overlay2", "vfs"])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Real]:
    with WorkerPool() as pool:
        stores = Real(tmp_path, request.param, pool)
        yield stores
        stores.close()


def image_id(dockerd: Engine, name: str) -> str:
    return dockerd.out("image", "inspect", "--format", "{{.Id}}", name)


def test_dockerd_loads_what_we_save(dockerd: Engine, real: Real) -> None:
    real.load(docker_archive(known_layers(), names=["ours:1", "localhost:5000/also/ours:2"]))
    dockerd.docker("load", stdin=real.save("ours:1", "localhost:5000/also/ours"))
    assert image_id(dockerd, "ours:1") == image_id(dockerd, "localhost:5000/also/ours:2") == KNOWN_IMAGE
    assert dockerd.out("image", "inspect", "--format", "{{.Size}}", "ours:1") == str(607 + 513)
    dockerd.docker("rmi", "ours:1", "localhost:5000/also/ours:2")


def test_we_load_what_dockerd_saves(dockerd: Engine, real: Real) -> None:
    dockerd.docker("load", stdin=docker_archive(known_layers(), names=["theirs:1"]))
    saved = dockerd.docker("save", "theirs:1").stdout
    (loaded,) = real.load(saved)
    assert loaded.image == KNOWN_IMAGE
    assert [reference.familiar() for reference in loaded.references] == ["theirs:1"]
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        theirs = {archive.extractfile(member).read() for member in archive if member.name.endswith("layer.tar")}
    with tarfile.open(fileobj=io.BytesIO(real.save("theirs:1"))) as archive:
        ours = [archive.extractfile(member).read() for member in archive if member.isfile()][-2:]
    assert set(ours) == theirs
    dockerd.docker("rmi", "theirs:1")


@pytest.mark.parametrize("name", ["alpine-3.10.tar.gz", "busybox-1.34.1.tar", "whiteout-4-layers.tar"])
def test_published_images_go_round(dockerd: Engine, real: Real, shared_images: Path, name: str) -> None:
    (loaded,) = real.load((shared_images / name).read_bytes())
    tag = loaded.references[0].familiar()
    dockerd.docker("load", stdin=real.save(tag))
    assert image_id(dockerd, tag) == loaded.image
    again = dockerd.docker("save", tag).stdout
    dockerd.docker("rmi", tag)
    real.tags.remove(loaded.references[0])
    real.images.delete(loaded.image)
    assert real.is_empty()
    assert real.load(again) == [loaded]
