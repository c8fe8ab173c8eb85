"""Manifests and indexes from hostile hands (attacks S9 and S10)."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.errors import InvalidManifest, Unsupported
from lamina.jsonvalue import JsonObject
from lamina.oci import mediatype
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import digest_of
from lamina.oci.manifest import (
    MAX_MANIFEST_BYTES,
    Index,
    Manifest,
    decode_manifest,
    encode_index,
    encode_manifest,
)

D = {"mediaType": mediatype.OCI_CONFIG, "digest": "sha256:" + "1" * 64, "size": 3}
L = {"mediaType": mediatype.OCI_LAYER_GZIP, "digest": "sha256:" + "2" * 64, "size": 4}
MANIFEST: JsonObject = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": dict(D), "layers": [dict(L)]}
INDEX: JsonObject = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [dict(D)]}


def raw(value: object) -> bytes:
    return json.dumps(value).encode()


def test_a_manifest_keeps_its_bytes_and_their_digest() -> None:
    data = json.dumps(MANIFEST, indent=3).encode()
    found = decode_manifest(data)
    assert isinstance(found, Manifest)
    assert found.raw == data
    assert found.digest == digest_of(data)
    assert [layer.size_bytes for layer in found.layers] == [4]


def test_an_index_is_an_index() -> None:
    found = decode_manifest(raw(INDEX), mediatype.OCI_INDEX)
    assert isinstance(found, Index)
    assert len(found.manifests) == 1


def test_without_a_media_type_the_fields_and_the_announcement_tell() -> None:
    bare = {key: value for key, value in MANIFEST.items() if key != "mediaType"}
    assert decode_manifest(raw(bare)).media_type == mediatype.OCI_MANIFEST
    assert decode_manifest(raw(bare), mediatype.DOCKER_MANIFEST + "; x=y").media_type == mediatype.DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("document", "announced"),
    [
        ({**MANIFEST, "manifests": [D]}, ""),
        ({**INDEX, "layers": []}, mediatype.OCI_INDEX),
        ({**INDEX, "config": D}, mediatype.OCI_MANIFEST),
        (MANIFEST, mediatype.OCI_INDEX),
        (INDEX, mediatype.OCI_MANIFEST),
        (MANIFEST, mediatype.DOCKER_MANIFEST),
        ({**MANIFEST, "mediaType": mediatype.OCI_INDEX}, ""),
        ({**INDEX, "mediaType": mediatype.DOCKER_MANIFEST}, ""),
        ({**MANIFEST, "mediaType": "text/plain"}, ""),
        ({**MANIFEST, "fsLayers": []}, ""),
        ({"schemaVersion": 2, "config": None, "layers": None}, mediatype.OCI_INDEX),
    ],
)
def test_bytes_that_two_readers_could_read_differently_are_refused(document: object, announced: str) -> None:
    with pytest.raises(InvalidManifest):
        decode_manifest(raw(document), announced)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"a":' * 100_000,
        raw({**MANIFEST, "layers": None, "config": None}),
        raw({**MANIFEST, "layers": [None]}),
        raw({**MANIFEST, "layers": {"a": 1}}),
        raw({**MANIFEST, "config": [1]}),
        raw({**MANIFEST, "schemaVersion": 3}),
        raw({**MANIFEST, "schemaVersion": "2"}),
        raw({**MANIFEST, "layers": [{**L, "size": -1}]}),
        raw({**MANIFEST, "layers": [{**L, "digest": "sha256:../../etc"}]}),
        b'{"config":{},"config":{},"layers":[]}',
        b'{"schemaVersion":' + b"9" * 10_000 + b"}",
        b" " * (MAX_MANIFEST_BYTES + 1),
        raw({**MANIFEST, "layers": [L] * 1001}),
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        decode_manifest(data)


def test_a_million_layers_are_refused_by_size_or_count() -> None:
    small = b'{"mediaType":"","digest":"sha256:' + b"0" * 64 + b'","size":1},'
    data = b'{"schemaVersion":2,"config":{},"layers":[' + small * 1_000_000 + b"null]}"
    with pytest.raises(InvalidManifest):
        decode_manifest(data)


def test_schema_1_is_told_apart() -> None:
    with pytest.raises(Unsupported, match="schema 1"):
        decode_manifest(raw({"schemaVersion": 1, "fsLayers": []}))
    with pytest.raises(Unsupported, match="schema 1"):
        decode_manifest(b"whatever", mediatype.DOCKER_SCHEMA1_SIGNED)


def test_what_we_write_reads_back() -> None:
    config = Descriptor(mediatype.OCI_CONFIG, digest_of(b"c"), 1)
    layers = [Descriptor(mediatype.OCI_LAYER, digest_of(b"l"), 1)]
    manifest = decode_manifest(encode_manifest(config, layers, media_type=mediatype.OCI_MANIFEST))
    assert isinstance(manifest, Manifest)
    assert (manifest.config, list(manifest.layers)) == (config, layers)
    index = decode_manifest(encode_index([config], media_type=mediatype.DOCKER_INDEX))
    assert isinstance(index, Index)
    assert list(index.manifests) == [config]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "subject"]), JSON)
)
def test_no_json_breaks_the_decoder(document: dict[str, object]) -> None:
    try:
        decode_manifest(raw(document))
    except (InvalidManifest, Unsupported):
        return
