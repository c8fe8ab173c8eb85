from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

from lamina.oci.config import decode_config
from lamina.oci.digest import digest_of
from lamina.oci.manifest import Index, Manifest, decode_manifest
from lamina.registry.hello_world import docker_archive, make, message, write_oci_layout

INDEX_DIGEST = "sha256:b4c1ca725802ebefcca48acddf429b44e228763780eb9d513526de6579e6acf7"


def test_the_image_is_the_same_on_every_machine() -> None:
    assert make().digest == INDEX_DIGEST


def test_the_index_names_two_platforms_and_everything_adds_up() -> None:
    hello = make()
    index = decode_manifest(hello.index)
    assert isinstance(index, Index)
    assert [str(found.platform) for found in index.manifests] == ["linux/amd64", "linux/arm64"]
    blobs = hello.blobs()
    for image, descriptor in zip(hello.images, index.manifests, strict=True):
        assert descriptor.digest == digest_of(image.manifest)
        manifest = decode_manifest(image.manifest)
        assert isinstance(manifest, Manifest)
        config = decode_config(blobs[manifest.config.digest])
        assert str(config.platform) == str(image.platform)
        plain = [gzip.decompress(blobs[layer.digest]) for layer in manifest.layers]
        assert [digest_of(tar) for tar in plain] == list(config.diff_ids)
        assert [entry.empty_layer for entry in config.history] == [False, False, True]
        assert all(layer.size_bytes == len(blobs[layer.digest]) for layer in manifest.layers)


def test_the_layers_hold_the_program_and_the_file_it_changes() -> None:
    image = make().images[0]
    names = []
    for _, blob in image.layers:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as layer:
            names += [(member.name, oct(member.mode), member.uid) for member in layer]
    assert names == [("hello", "0o755", 0), ("greetings.txt", "0o644", 0)]
    assert message("amd64") in gzip.decompress(image.layers[0][1])


def test_the_layout_holds_every_blob_under_its_digest(tmp_path: Path) -> None:
    hello = make()
    write_oci_layout(hello, tmp_path / "layout")
    blobs = list((tmp_path / "layout" / "blobs" / "sha256").iterdir())
    assert len(blobs) == len(hello.blobs()) + 3
    for blob in blobs:
        assert digest_of(blob.read_bytes()) == f"sha256:{blob.name}"
    top = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    assert top["manifests"][0]["digest"] == hello.digest


def test_the_archive_is_one_that_docker_loads() -> None:
    image = make().images[1]
    with tarfile.open(fileobj=io.BytesIO(docker_archive(image))) as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    [entry] = json.loads(contents["manifest.json"])
    assert contents[entry["Config"]] == image.config
    assert entry["RepoTags"] == ["hello-world:latest"]
    assert [digest_of(contents[name]) for name in entry["Layers"]] == [diff_id for diff_id, _ in image.layers]
