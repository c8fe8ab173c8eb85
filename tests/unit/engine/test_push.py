"""Pushes from a real layer store."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from lamina.distribution.resolve import resolve
from lamina.errors import NotFound, PermissionDenied
from lamina.oci.platform import Platform
from lamina.registry.app import build_app
from tests.fakes.puller import Puller, puller
from tests.fakes.registries import docker_registry, hostile, reference, repository, serving
from tests.fakes.tars import tar_of
from tests.unit.engine.test_pull import image_of, pull, serve

pytestmark = pytest.mark.root

AMD64 = Platform("linux", "amd64")
TARS = [tar_of({"a": b"a" * 100_000, "b": b"bytes"}), tar_of({"c": b"c" * 300_000})]


async def push(engine: Puller, text: str) -> list[str]:
    engine.told.clear()
    await engine.push(reference(text), platform=None, auth=None, progress=engine.told.append)
    return engine.statuses()


def play(tmp_path: Path, case: Callable[[Puller, int, str], Awaitable[None]]) -> None:
    """An engine with an image `source` of two layers, and an empty registry at a port."""

    async def run() -> None:
        async with (
            serving(await asyncio.to_thread(build_app, tmp_path / "registry")) as port,
            hostile() as origin,
            puller(tmp_path / "root") as engine,
        ):
            name = serve(origin, image_of(*TARS))
            await pull(engine, name)
            await case(engine, port, name)

    asyncio.run(run())


def retag(engine: Puller, source: str, target: str) -> None:
    engine.tags.set_tag(reference(target), engine.tags.resolve(reference(source)))


async def pulled_back(engine: Puller, text: str) -> list[bytes]:
    """The layers' tars as the registry has them."""
    source = await repository(engine.registries, text)
    found = await resolve(source, reference(text), AMD64)
    assert found.manifest.config.digest == engine.tags.resolve(reference(text))
    return [gzip.decompress(await source.small_blob(layer, limit_bytes=1 << 30)) for layer in found.manifest.layers]


def test_what_is_pushed_comes_back_to_the_byte(tmp_path: Path) -> None:
    async def case(engine: Puller, port: int, source: str) -> None:
        target = f"127.0.0.1:{port}/mine/image"
        retag(engine, source, f"{target}:v1")
        statuses = await push(engine, f"{target}:v1")
        assert statuses[0] == f"The push refers to repository [{target}]"
        assert statuses.count("Preparing") == 2
        assert statuses.count("Pushed") == 2
        found = await resolve(await repository(engine.registries, target), reference(f"{target}:v1"), AMD64)
        assert statuses[-2] == f"v1: digest: {found.digest} size: {len(found.manifest.raw)}"
        assert engine.told[-1].aux == {"Tag": "v1", "Digest": found.digest, "Size": len(found.manifest.raw)}
        assert await pulled_back(engine, f"{target}:v1") == TARS
        assert engine.tags.resolve(reference(f"{target}@{found.digest}")) == engine.tags.resolve(reference(source))
        assert engine.published[-1][:3] == ("image", "push", f"{target}:v1")
        assert os.listdir(engine.root / "tmp") == []

    play(tmp_path, case)


def test_what_the_registry_has_is_not_sent_again(tmp_path: Path) -> None:
    async def case(engine: Puller, port: int, source: str) -> None:
        target = f"127.0.0.1:{port}/mine/image"
        for tag in ("v1", "v2"):
            retag(engine, source, f"{target}:{tag}")
        first = await push(engine, f"{target}:v1")
        second = await push(engine, f"{target}:v2")
        assert second.count("Layer already exists") == 2
        assert "Pushed" not in second
        assert first[-2].removeprefix("v1") == second[-2].removeprefix("v2")

    play(tmp_path, case)


def test_layers_are_mounted_from_another_repository_of_the_registry(tmp_path: Path) -> None:
    async def case(engine: Puller, port: int, source: str) -> None:
        one, two = (f"127.0.0.1:{port}/{name}" for name in ("one", "two"))
        for target in (one, two):
            retag(engine, source, f"{target}:v1")
        await push(engine, f"{one}:v1")
        statuses = await push(engine, f"{two}:v1")
        assert statuses.count("Mounted from one") == 2
        assert await pulled_back(engine, f"{two}:v1") == TARS

    play(tmp_path, case)


def test_a_layer_is_packed_to_the_same_bytes_every_time(tmp_path: Path) -> None:
    async def case(engine: Puller, port: int, source: str) -> None:
        digests = []
        for name in ("one", "two"):
            # Each into a registry of its own, with nothing remembered.
            for path in (engine.root / "image" / "overlay2" / "distribution").rglob("*"):
                if path.is_file():
                    path.unlink()
            async with serving(await asyncio.to_thread(build_app, tmp_path / name)) as other:
                target = f"127.0.0.1:{other}/image"
                retag(engine, source, f"{target}:v1")
                digests.append((await push(engine, f"{target}:v1"))[-2])
        assert digests[0] == digests[1]

    play(tmp_path, case)


def test_debians_registry_takes_it_too(tmp_path: Path) -> None:
    async def case(engine: Puller, _: int, source: str) -> None:
        target = f"127.0.0.1:{debian}/mine/image:v1"
        retag(engine, source, target)
        await push(engine, target)
        assert await pulled_back(engine, target) == TARS

    with docker_registry(tmp_path / "debian") as debian:
        play(tmp_path, case)


def test_an_image_that_is_not_here_is_not_found(tmp_path: Path) -> None:
    async def case(engine: Puller, port: int, _: str) -> None:
        with pytest.raises(NotFound, match="An image does not exist locally with the tag: 127"):
            await push(engine, f"127.0.0.1:{port}/nothing:v1")

    play(tmp_path, case)


def test_a_refusal_is_told(tmp_path: Path) -> None:
    async def case(engine: Puller, _: int, source: str) -> None:
        async with hostile() as registry:
            target = f"127.0.0.1:{registry.port}/mine:v1"
            retag(engine, source, target)
            registry.on("POST", "/v2/mine/blobs/uploads/", web.Response(status=403))
            with pytest.raises(PermissionDenied, match=r"push access denied for .*/mine: denied"):
                await push(engine, target)
            assert all(request.method != "PUT" for request in registry.requests)

    play(tmp_path, case)
