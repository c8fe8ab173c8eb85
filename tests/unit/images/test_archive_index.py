"""What an archive says it holds, and what it may not say (attacks S8, S9, S10, S12)."""

from __future__ import annotations

import json

import pytest

from lamina.errors import InvalidManifest, LaminaError
from lamina.images.archive_index import archived_images
from lamina.oci import mediatype
from tests.unit.images.stores import config, sha256

RAW = config("a", "b")
ROW = {"Config": "c.json", "RepoTags": ["me/x:1", "y:2"], "Layers": ["1/layer.tar", "./2/layer.tar"]}


def docker(*rows: object, **files: bytes) -> dict[str, bytes]:
    return {"manifest.json": json.dumps(rows).encode(), "c.json": RAW, **files}


def test_dockers_manifest() -> None:
    (image,) = archived_images(docker(ROW))
    assert image.config.raw == RAW
    assert image.layer_names == ("1/layer.tar", "2/layer.tar")
    assert [reference.familiar() for reference in image.references] == ["me/x:1", "y:2"]


@pytest.mark.parametrize(
    "change",
    [
        {"Config": "../../etc/passwd"},
        {"Config": "/etc/passwd"},
        {"Config": "missing.json"},
        {"Config": ""},
        {"Config": 5},
        {"RepoTags": ["x:1\n2"]},
        {"RepoTags": ["../x:1"]},
        {"RepoTags": ["x:.."]},
        {"RepoTags": ["x"]},
        {"RepoTags": ["a@sha256:" + "0" * 64]},
        {"RepoTags": {"a": 1}},
        {"Layers": ["1/layer.tar"]},
        {"Layers": ["../1/layer.tar", "b"]},
        {"Layers": ["/1", "b"]},
        {"Layers": ["a\0", "b"]},
        {"Layers": [None, "b"]},
        {"Parent": "sha256:../../x"},
    ],
)
def test_what_breaks_a_rule_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(LaminaError):
        archived_images(docker({**ROW, **change}))


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"{}", b"null x", b"5", b'["a"]', b"[" * 100_000, b'[{"Config":1,"Config":2}]']
)
def test_a_manifest_that_is_no_list_of_images_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidManifest):
        archived_images({"manifest.json": raw})


def test_something_else_altogether_is_told_so() -> None:
    with pytest.raises(InvalidManifest, match="no image archive"):
        archived_images({"etc/passwd": b"root"})


def layout(*descriptors: dict[str, object], **blobs: bytes) -> dict[str, bytes]:
    index = {"schemaVersion": 2, "manifests": list(descriptors)}
    found = {"index.json": json.dumps(index).encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    for data in (RAW, MANIFEST, *blobs.values()):
        found[f"blobs/sha256/{sha256(data)[7:]}"] = data
    return found


def descriptor(data: bytes, media_type: str = mediatype.OCI_MANIFEST, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": descriptor(RAW, mediatype.OCI_CONFIG),
        "layers": [descriptor(data, mediatype.OCI_LAYER_GZIP) for data in (b"1", b"2")],
    }
).encode()


def named(name: str) -> dict[str, str]:
    return {"annotations": {"io.containerd.image.name": name}}  # type: ignore[dict-item]


def test_an_oci_layout_with_names() -> None:
    (image,) = archived_images(
        layout(descriptor(MANIFEST, **named("quay.io/x:1")), descriptor(MANIFEST, **named("y:2")))
    )
    assert image.layer_names == tuple(f"blobs/sha256/{sha256(data)[7:]}" for data in (b"1", b"2"))
    assert [reference.familiar() for reference in image.references] == ["quay.io/x:1", "y:2"]


def test_a_bare_tag_without_a_name_names_nothing() -> None:
    row = descriptor(MANIFEST, annotations={"org.opencontainers.image.ref.name": "7"})
    assert archived_images(layout(row))[0].references == ()


def test_an_index_below_the_index_gives_its_saved_images_without_attestations() -> None:
    attestation = descriptor(b"x", platform={"os": "unknown", "architecture": "unknown"})
    absent = descriptor(b"not saved", platform={"os": "linux", "architecture": "s390x"})
    below = json.dumps(
        {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [absent, descriptor(MANIFEST), attestation]}
    ).encode()
    (image,) = archived_images(layout(descriptor(below, mediatype.OCI_INDEX, **named("a:1")), below=below))
    assert [reference.familiar() for reference in image.references] == ["a:1"]


def test_bytes_that_are_not_what_the_digest_says_are_refused() -> None:
    documents = layout(descriptor(MANIFEST))
    documents[f"blobs/sha256/{sha256(MANIFEST)[7:]}"] = MANIFEST + b" "
    with pytest.raises(InvalidManifest, match="other bytes"):
        archived_images(documents)


def test_the_right_digest_with_a_wrong_size_is_refused() -> None:
    with pytest.raises(InvalidManifest, match="other bytes"):
        archived_images(layout({**descriptor(MANIFEST), "size": 5}))


def test_an_unknown_layout_version_is_refused() -> None:
    documents = layout(descriptor(MANIFEST))
    with pytest.raises(InvalidManifest, match="imageLayoutVersion"):
        archived_images({**documents, "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'})


def test_a_manifest_announced_as_an_index_is_refused() -> None:
    with pytest.raises(InvalidManifest):
        archived_images(layout(descriptor(MANIFEST, mediatype.OCI_INDEX)))


def test_indexes_within_indexes_end_somewhere() -> None:
    data, blobs = MANIFEST, {}
    for depth in range(8):
        media_type = mediatype.OCI_INDEX if depth else mediatype.OCI_MANIFEST
        rows = [descriptor(data, media_type)] * 20
        data = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": rows}).encode()
        blobs[str(depth)] = data
    with pytest.raises(InvalidManifest, match="without end"):
        archived_images(layout(descriptor(data, mediatype.OCI_INDEX), **blobs))


def test_more_names_than_anybody_gives_are_refused() -> None:
    rows = [{**ROW, "RepoTags": [f"x:{number}" for number in range(6000)]}] * 2
    with pytest.raises(InvalidManifest, match="more than 10000 names"):
        archived_images(docker(*rows))


def test_a_config_that_many_rows_name_is_decoded_once() -> None:
    images = archived_images(docker(*[{**ROW, "RepoTags": None}] * 500))
    assert len({id(image.config) for image in images}) == 1
