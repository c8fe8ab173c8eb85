"""From a reference to a manifest, when the registry means well and when it does not."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from lamina.distribution.resolve import Resolved, resolve
from lamina.errors import DigestMismatch, InvalidManifest, LaminaError, SizeMismatch, Unsupported
from lamina.oci import mediatype
from lamina.oci.digest import digest_of
from lamina.oci.platform import Platform
from tests.fakes.registries import Hostile, client, hostile, reference, repository

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
CONFIG = {"mediaType": mediatype.OCI_CONFIG, "digest": digest_of(b"c"), "size": 1}
LAYER = {"mediaType": mediatype.OCI_LAYER_GZIP, "digest": digest_of(b"l"), "size": 1}
IMAGE = json.dumps(
    {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
).encode()


def described(raw: bytes, architecture: str = "amd64", **changed: object) -> dict[str, object]:
    platform = {"os": "linux", "architecture": architecture}
    found = {"mediaType": mediatype.OCI_MANIFEST, "digest": digest_of(raw), "size": len(raw), "platform": platform}
    return {**found, **changed}


def index_of(*manifests: dict[str, object]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": list(manifests)}).encode()


def ask(
    served: dict[str, tuple[str, bytes]], wanted: str = "latest", platform: Platform = AMD64
) -> tuple[Resolved, Hostile]:
    """Resolve `wanted` at a registry with these manifests by tag or digest."""

    async def run() -> tuple[Resolved, Hostile]:
        async with hostile() as registry, client() as registries:
            for name, (media_type, raw) in served.items():
                answer = web.Response(body=raw, headers={"Content-Type": media_type})
                registry.on("GET", f"/v2/a/manifests/{name}", answer)
            name = f"127.0.0.1:{registry.port}/a"
            text = f"{name}@{wanted}" if ":" in wanted else f"{name}:{wanted}"
            return await resolve(await repository(registries, name), reference(text), platform), registry

    return asyncio.run(run())


def test_a_tag_that_names_a_manifest() -> None:
    found, registry = ask({"latest": (mediatype.OCI_MANIFEST, IMAGE)})
    assert (found.digest, found.manifest.raw) == (digest_of(IMAGE), IMAGE)
    assert mediatype.DOCKER_INDEX in registry.requests[-1].headers["Accept"]


@pytest.mark.parametrize(("platform", "suffix"), [(AMD64, b" "), (ARM64, b"  ")])
def test_a_tag_that_names_an_index_leads_to_the_platform(platform: Platform, suffix: bytes) -> None:
    images = {"amd64": IMAGE + b" ", "arm64": IMAGE + b"  "}
    index = index_of(*(described(raw, name) for name, raw in images.items()))
    served = {digest_of(raw): (mediatype.OCI_MANIFEST, raw) for raw in images.values()}
    found, _ = ask({"latest": (mediatype.OCI_INDEX, index), **served}, platform=platform)
    assert found.digest == digest_of(index)
    assert found.manifest.raw == IMAGE + suffix


def test_a_platform_that_is_not_there_is_told() -> None:
    index = index_of(described(IMAGE, "s390x"))
    with pytest.raises(Unsupported, match="no matching manifest for linux/amd64") as failure:
        ask({"latest": (mediatype.OCI_INDEX, index)})
    assert "linux/s390x" in failure.value.hint


def test_other_bytes_than_the_digest_says_are_refused() -> None:
    wanted = digest_of(IMAGE)
    with pytest.raises(DigestMismatch, match="manifest verification failed"):
        ask({wanted: (mediatype.OCI_MANIFEST, IMAGE + b" ")}, wanted)


def test_a_manifest_swapped_below_an_index_is_refused() -> None:
    index = index_of(described(IMAGE))
    with pytest.raises(SizeMismatch):
        ask({"latest": (mediatype.OCI_INDEX, index), digest_of(IMAGE): (mediatype.OCI_MANIFEST, IMAGE + b" ")})
    swapped = IMAGE.replace(b"schemaVersion", b"schemaversion")
    with pytest.raises(DigestMismatch):
        ask({"latest": (mediatype.OCI_INDEX, index), digest_of(IMAGE): (mediatype.OCI_MANIFEST, swapped)})


_BOTH = json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": [LAYER], "manifests": [described(IMAGE)]}).encode()


@pytest.mark.parametrize(
    ("media_type", "raw"),
    [
        (mediatype.OCI_MANIFEST, _BOTH),
        (mediatype.OCI_INDEX, _BOTH),
        (mediatype.OCI_INDEX, IMAGE),
        (mediatype.DOCKER_MANIFEST, IMAGE),
        (mediatype.OCI_MANIFEST, index_of(described(IMAGE))),
    ],
)
def test_bytes_that_mean_two_things_are_refused(media_type: str, raw: bytes) -> None:
    with pytest.raises(InvalidManifest):
        ask({"latest": (media_type, raw)})


def test_an_index_and_the_registry_must_agree_on_the_type() -> None:
    index = index_of(described(IMAGE))
    with pytest.raises(InvalidManifest, match="the index says"):
        ask({"latest": (mediatype.OCI_INDEX, index), digest_of(IMAGE): (mediatype.DOCKER_MANIFEST, IMAGE)})


def test_indexes_in_one_another_end() -> None:
    raw, served = IMAGE, {}
    kind = mediatype.OCI_MANIFEST
    for _ in range(8):
        served[digest_of(raw)] = (kind, raw)
        raw, kind = index_of(described(raw, mediaType=kind)), mediatype.OCI_INDEX
    with pytest.raises(InvalidManifest, match="indexes in one another"):
        ask({"latest": (kind, raw), **served})


def _with(**changed: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": [LAYER], **changed}).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"{",
        b'{"schemaVersion":2,"schemaVersion":2}',
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        _with(config=None),
        _with(config={**CONFIG, "digest": "sha256:../../x"}),
        _with(config={**CONFIG, "digest": CONFIG["digest"].upper()}),  # type: ignore[attr-defined]
        _with(config={**CONFIG, "digest": "md5:d41d8cd98f00b204e9800998ecf8427e"}),
        _with(config={**CONFIG, "size": -1}),
        _with(config={**CONFIG, "size": "1"}),
        _with(config={**CONFIG, "size": 2**70}),
        _with(layers=[None]),
        _with(layers=[{**LAYER, "digest": None}]),
        _with(layers={}),
        _with(layers=[LAYER] * 1001),
    ],
    ids=range(17),
)
def test_a_malformed_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidManifest):
        ask({"latest": (mediatype.OCI_MANIFEST, raw)})


def test_a_manifest_of_a_million_layers_is_refused() -> None:
    layer = json.dumps(LAYER)
    raw = b'{"schemaVersion":2,"config":' + json.dumps(CONFIG).encode() + b',"layers":['
    raw += ",".join([layer] * 1_000_000).encode() + b"]}"
    with pytest.raises(LaminaError, match="sends more than 4194304 bytes"):
        ask({"latest": (mediatype.OCI_MANIFEST, raw)})


def test_what_is_no_image_is_refused() -> None:
    chart = _with(config={**CONFIG, "mediaType": "application/vnd.cncf.helm.config.v1+json"})
    with pytest.raises(Unsupported, match="is no image"):
        ask({"latest": (mediatype.OCI_MANIFEST, chart)})
    odd = _with(layers=[{**LAYER, "mediaType": "application/x-wasm"}])
    with pytest.raises(Unsupported, match="unknown type"):
        ask({"latest": (mediatype.OCI_MANIFEST, odd)})


def test_schema_1_is_told_apart() -> None:
    with pytest.raises(Unsupported, match="schema 1 is not supported"):
        ask({"latest": (mediatype.DOCKER_SCHEMA1_SIGNED, b'{"schemaVersion":1,"fsLayers":[]}')})
