"""Put the hello-world image into a registry, with the client that pushes images (async).

`python -m lamina.registry.publish HOST:PORT/NAME[:TAG]` does it from a shell.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable

from lamina.distribution.registries import Registries
from lamina.distribution.registry_config import RegistryConfig
from lamina.distribution.repository import Repository
from lamina.errors import LaminaError
from lamina.oci import mediatype
from lamina.oci.digest import Digest
from lamina.oci.reference import parse_reference
from lamina.registry.hello_world import HelloWorld, make
from lamina.wire.engine.auth import RegistryAuth
from lamina.workers import Workers


async def publish(
    reference: str, workers: Workers, *, config: RegistryConfig | None = None, auth: RegistryAuth | None = None
) -> Digest:
    """Push hello-world, for all its platforms, as `HOST[:PORT]/NAME[:TAG]`; the digest of its index."""
    target = parse_reference(reference).with_default_tag()
    registries = Registries(config or RegistryConfig(), workers)
    try:
        hello = make()
        await push_hello(hello, await registries.push_to(target, auth), target.tag or "latest")
        return hello.digest
    finally:
        await registries.aclose()


async def push_hello(hello: HelloWorld, repository: Repository, tag: str) -> None:
    """Blobs first, then the manifests of the platforms, the tagged index last."""
    for digest, blob in hello.blobs().items():
        if await repository.has_blob(digest) is None:
            await repository.upload(digest, len(blob), _once(blob))
    for image in hello.images:
        await repository.put_manifest(image.manifest_digest, image.manifest, mediatype.OCI_MANIFEST)
    await repository.put_manifest(tag, hello.index, mediatype.OCI_INDEX)


def _once(blob: bytes) -> Callable[[], AsyncIterator[bytes]]:
    async def body() -> AsyncIterator[bytes]:
        yield blob

    return body


async def _publish_and_tell(reference: str) -> str:
    workers = Workers()
    try:
        await publish(reference, workers)
    finally:
        workers.close()
    platforms = ", ".join(str(image.platform) for image in make().images)
    return f"published {parse_reference(reference).with_default_tag().familiar()}: {platforms}"


def main(arguments: list[str]) -> int:
    """What the shell runs; the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m lamina.registry.publish HOST:PORT/NAME[:TAG]\n")
        return 2
    try:
        told = asyncio.run(_publish_and_tell(arguments[0]))
    except LaminaError as error:
        sys.stderr.write(f"lamina: {error}\n")
        return 1
    sys.stdout.write(f"{told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
