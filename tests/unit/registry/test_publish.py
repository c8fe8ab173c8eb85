from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lamina.distribution.resolve import resolve
from lamina.oci.platform import Platform
from lamina.registry.app import build_app
from lamina.registry.hello_world import make
from lamina.registry.publish import main, publish
from lamina.workers import Workers
from tests.fakes.registries import client, docker_registry, reference, repository, serving


async def _publish_and_resolve(port: int) -> None:
    name = f"127.0.0.1:{port}/library/hello-world"
    workers = Workers(threads=4)
    hello = make()
    assert await publish(name, workers) == hello.digest
    assert await publish(f"{name}:again", workers) == hello.digest
    workers.close()
    async with client() as registries:
        source = await repository(registries, name)
        for image in hello.images:
            found = await resolve(source, reference(name), image.platform)
            assert (found.digest, found.manifest.raw) == (hello.digest, image.manifest)
            for layer, (_, blob) in zip(found.manifest.layers, image.layers, strict=True):
                assert await source.small_blob(layer, limit_bytes=1 << 20) == blob
        by_digest = reference(f"{name}@{hello.digest}")
        assert (await resolve(source, by_digest, Platform("linux", "arm64"))).digest == hello.digest


def test_hello_world_goes_into_our_registry_and_comes_out(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(await asyncio.to_thread(build_app, tmp_path)) as port:
            await _publish_and_resolve(port)

    asyncio.run(run())


def test_hello_world_goes_into_debians_registry_and_comes_out(tmp_path: Path) -> None:
    with docker_registry(tmp_path) as port:
        asyncio.run(_publish_and_resolve(port))


def test_the_shell_is_told_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
    assert main(["127.0.0.1:1/hello-world"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
