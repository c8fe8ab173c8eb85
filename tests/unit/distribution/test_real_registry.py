"""The client against Debian's docker-registry: plain, and with TLS and a password."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from lamina.distribution.registry_config import RegistryConfig
from lamina.distribution.resolve import resolve
from lamina.errors import LaminaError, NotFound, Unauthenticated
from lamina.oci.platform import Platform
from lamina.registry.hello_world import make
from lamina.registry.publish import push_hello
from lamina.wire.engine.auth import RegistryAuth
from tests.fakes.registries import client, docker_registry, reference, repository
from tests.unit.distribution.test_tls import certificates  # noqa: F401 - a fixture

ME = RegistryAuth("me", "secret pässword")
AMD64 = Platform("linux", "amd64")


async def _round_trip(name: str, config: RegistryConfig, auth: RegistryAuth | None) -> None:
    hello = make()
    async with client(config) as registries:
        await push_hello(hello, await registries.push_to(reference(name), auth), "latest")
        source = await repository(registries, name, auth)
        found = await resolve(source, reference(name), AMD64)
        assert found.digest == hello.digest
        for layer, (_, blob) in zip(found.manifest.layers, hello.images[0].layers, strict=True):
            assert await source.small_blob(layer, limit_bytes=1 << 20) == blob
            assert await source.has_blob(layer.digest) == len(blob)
        other = await registries.push_to(reference(f"{name}-other"), auth)
        assert await other.mount(found.manifest.layers[0].digest, source.name)
        assert await other.has_blob(found.manifest.layers[0].digest)
        with pytest.raises(NotFound, match="manifest unknown"):
            await resolve(source, reference(f"{name}:nothing"), AMD64)


def test_push_and_pull(tmp_path: Path) -> None:
    with docker_registry(tmp_path) as port:
        asyncio.run(_round_trip(f"127.0.0.1:{port}/library/hello", RegistryConfig(certs_dirs=()), None))


def test_push_and_pull_with_tls_and_a_password(tmp_path: Path, certificates: Path) -> None:  # noqa: F811
    program = shutil.which("htpasswd")
    if program is None:
        pytest.skip("htpasswd is not installed")
    line = subprocess.run(
        [program, "-Bbn", ME.username, ME.password], check=True, capture_output=True, text=True
    ).stdout
    (tmp_path / "htpasswd").write_text(line)
    tls = f"  tls:\n    certificate: {certificates}/server.crt\n    key: {certificates}/server.key\n"
    auth = f"auth:\n  htpasswd: {{realm: here, path: {tmp_path}/htpasswd}}\n"
    with docker_registry(tmp_path / "registry", http=tls, extra=auth) as port:
        host = f"127.0.0.1:{port}"
        trusted = tmp_path / "certs.d"
        (trusted / host).mkdir(parents=True)
        shutil.copy(certificates / "ca.crt", trusted / host)
        strict = RegistryConfig(insecure_networks=(), certs_dirs=(trusted,))
        name = f"{host}/library/hello"
        asyncio.run(_round_trip(name, strict, ME))
        asyncio.run(_refusals(name, strict))


async def _refusals(name: str, config: RegistryConfig) -> None:
    async with client(config) as registries:
        for auth, words in ((None, "docker login"), (RegistryAuth("me", "wrong"), "docker login")):
            with pytest.raises(Unauthenticated, match=words):
                await resolve(await repository(registries, name, auth), reference(name), AMD64)
    async with client(RegistryConfig(insecure_networks=(), certs_dirs=())) as registries:
        with pytest.raises(LaminaError, match="x509: certificate signed by unknown authority"):
            await resolve(await repository(registries, name, ME), reference(name), AMD64)
