"""Archives into the stores: the right ids, everything shared, nothing left of what fails."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard

from lamina.errors import DataLoss, DigestMismatch, InvalidManifest, LaminaError, StorageFull, Unsupported
from lamina.kernel.mounts import Mount, mount, unmount
from lamina.layers.pool import WorkerPool
from lamina.oci.reference import parse_reference
from lamina.wire.engine.progress import Progress
from tests.unit.images.stores import (
    KNOWN_IMAGE,
    Real,
    config_of,
    docker_archive,
    known_layers,
    link,
    pieces,
    sha256,
    tar,
)

pytestmark = pytest.mark.root
LAYERS = known_layers()


@pytest.mark.parametrize("outer", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
@pytest.mark.parametrize("inner", [bytes, gzip.compress, zstandard.compress])
def test_the_ids_are_the_ones_a_real_dockerd_computed(real: Real, outer, inner) -> None:
    archive = outer(docker_archive(LAYERS, stored=[inner(layer) for layer in LAYERS]))
    (loaded,) = real.load(archive)
    assert loaded.image == KNOWN_IMAGE
    assert real.lookup.find("known:1") == KNOWN_IMAGE
    sizes = [real.layers.get(chain).size_bytes for chain in real.images.get(loaded.image).chain_ids]
    assert sizes == ([607, 513] if real.driver.name == "overlay2" else [606, 513])
    assert list(real.scratch.iterdir()) == []


def test_the_second_layer_hides_what_it_deletes(real: Real) -> None:
    real.load(docker_archive(LAYERS))
    top = real.images.get(real.lookup.find("known:1")).top
    assert top is not None
    real.layers.create_rw("box", top, prepare=None)
    tree = real.layers.mount_rw("box")
    try:
        assert sorted(path.name for path in tree.rglob("*")) == ["c", "data", "etc"]
    finally:
        real.layers.unmount_rw("box")
        real.layers.remove_rw("box")


def test_loading_again_doubles_nothing(real: Real) -> None:
    real.load(docker_archive(LAYERS))
    before = real.driver.cache_ids()
    real.load(docker_archive(LAYERS, names=["other:2"]))
    assert real.driver.cache_ids() == before
    assert real.lookup.find("other:2") == real.lookup.find("known:1")
    real.tags.remove(parse_reference("known:1"))
    real.tags.remove(parse_reference("other:2"))
    assert len(real.images.delete(real.images.ids()[0])) == 2
    assert real.is_empty()


def test_a_layer_that_a_symlink_stands_for(real: Real) -> None:
    raw = config_of([LAYERS[0], LAYERS[1], LAYERS[1]])
    row = {"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}
    archive = tar(
        link("c/layer.tar", "../b/layer.tar"), ("a/layer.tar", LAYERS[0]), ("b/layer.tar", LAYERS[1]),
        ("c.json", raw), ("manifest.json", json.dumps([row]).encode()),
    )  # fmt: skip
    (loaded,) = real.load(archive)
    assert len(real.images.get(loaded.image).chain_ids) == len(real.layers.layers()) == 3


def test_several_images_share_layers_and_links_to_parents_are_kept(real: Real) -> None:
    below, above = config_of(LAYERS[:1]), config_of(LAYERS)
    rows = [
        {"Config": "a.json", "RepoTags": None, "Layers": ["1/layer.tar"]},
        {"Config": "b.json", "RepoTags": ["b:1"], "Layers": ["1/layer.tar", "2/layer.tar"], "Parent": sha256(below)},
    ]
    archive = tar(
        ("manifest.json", json.dumps(rows).encode()), ("a.json", below), ("b.json", above),
        ("1/layer.tar", LAYERS[0]), ("2/layer.tar", LAYERS[1]),
    )  # fmt: skip
    loaded = real.load(archive)
    assert [found.image for found in loaded] == [sha256(below), sha256(above)]
    assert len(real.layers.layers()) == 2
    assert real.images.parent(sha256(above)) == sha256(below)


def test_a_parent_that_is_none_is_not_believed(real: Real) -> None:
    stranger = config_of(LAYERS[1:], history=[])
    rows = [
        {"Config": "a.json", "RepoTags": None, "Layers": ["2/layer.tar"]},
        {"Config": "b.json", "RepoTags": None, "Layers": ["1/layer.tar"], "Parent": sha256(stranger)},
    ]
    other = config_of(LAYERS[:1], history=[{"created_by": "x"}, {"created_by": "y", "empty_layer": True}])
    archive = tar(
        ("manifest.json", json.dumps(rows).encode()), ("a.json", stranger), ("b.json", other),
        ("1/layer.tar", LAYERS[0]), ("2/layer.tar", LAYERS[1]),
    )  # fmt: skip
    real.load(archive)
    assert real.images.parent(sha256(other)) is None


def test_a_tag_that_moves_is_told(real: Real) -> None:
    real.load(docker_archive(LAYERS))
    told: list[Progress] = []
    real.load(docker_archive(LAYERS[:1]), report=told.append)
    lines = [step.stream for step in told if step.stream]
    assert lines == [f"The image known:1 already exists, renaming the old one with ID {KNOWN_IMAGE} to empty string\n"]
    assert told[0] == Progress("Loading layer", id="000000000000", current=10240, total=10240)


def test_an_oci_layout_with_compressed_layers(real: Real) -> None:
    raw = config_of(LAYERS)
    packed = [gzip.compress(LAYERS[0]), zstandard.compress(LAYERS[1])]
    kinds = ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd"]

    def row(data: bytes, media_type: str, **more: object) -> dict[str, object]:
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": row(raw, "application/vnd.oci.image.config.v1+json"),
            "layers": [row(data, kind) for data, kind in zip(packed, kinds, strict=True)],
        }
    ).encode()
    name = {"io.containerd.image.name": "docker.io/library/oci:1"}
    manifest_row = row(manifest, "application/vnd.oci.image.manifest.v1+json", annotations=name)
    index = json.dumps({"schemaVersion": 2, "manifests": [manifest_row]}).encode()
    blobs = [(f"blobs/sha256/{sha256(data)[7:]}", data) for data in (raw, manifest, *packed)]
    real.load(tar(*blobs, ("index.json", index), ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')))
    assert real.lookup.find("oci:1") == KNOWN_IMAGE


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        (docker_archive(LAYERS, stored=[LAYERS[1], LAYERS[0]]), DigestMismatch),
        (docker_archive(LAYERS, stored=[LAYERS[0], LAYERS[1] + bytes(512)]), DigestMismatch),
        (docker_archive(LAYERS, stored=[LAYERS[0], gzip.compress(LAYERS[1])[:-20]]), LaminaError),
        (docker_archive(LAYERS, stored=[LAYERS[0], b"no layer"]), InvalidManifest),
        (docker_archive(LAYERS, image_config=b"no json"), InvalidManifest),
        (docker_archive(LAYERS, image_config=config_of(LAYERS, os="windows")), Unsupported),
        (docker_archive(LAYERS, image_config=config_of([*LAYERS, LAYERS[1]])), InvalidManifest),
        (docker_archive(LAYERS, image_config=config_of([LAYERS[1]] * 126)), InvalidManifest),
        (docker_archive(LAYERS, names=["x:1\n2"]), LaminaError),
        (docker_archive(LAYERS, names=["a/../../b:1"]), LaminaError),
        (docker_archive(LAYERS)[:15_000], DataLoss),
        (tar(("1/layer.tar", LAYERS[0]), ("2/layer.tar", LAYERS[1])), InvalidManifest),
        (tar(("1/layer.tar", LAYERS[0]), link("2/layer.tar", "/etc/shadow")), LaminaError),
        (tar(("1/layer.tar", LAYERS[0]), ("../2/layer.tar", LAYERS[1])), LaminaError),
        (b"", LaminaError),
        (b"this is no archive" * 100, LaminaError),
        (gzip.compress(docker_archive(LAYERS))[:-20], LaminaError),
    ],
)  # fmt: skip
def test_of_what_is_refused_nothing_is_left(real: Real, archive: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        real.load(archive)
    assert real.is_empty()


def test_a_layer_that_leaves_its_root_is_refused(real: Real, tmp_path: Path) -> None:
    evil = [tar(("../../../../escaped", b"x")), tar(link("h", "../../../etc/passwd", tarfile.LNKTYPE))]
    for layer in evil:
        with pytest.raises(LaminaError):
            real.load(docker_archive([LAYERS[0], layer]))
        assert real.is_empty()
    assert not list(tmp_path.rglob("escaped"))


def test_a_sender_that_breaks_off_leaves_nothing(real: Real) -> None:
    def broken():
        yield from pieces(docker_archive(LAYERS)[:12_000], 1000)
        raise ConnectionAbortedError("gone")

    with pytest.raises(ConnectionAbortedError):
        real.loader.load(broken(), lambda _: None)
    assert real.is_empty()


def test_images_before_the_broken_one_stay(real: Real) -> None:
    rows = [
        {"Config": "a.json", "RepoTags": ["good:1"], "Layers": ["1/layer.tar"]},
        {"Config": "b.json", "RepoTags": ["bad:1"], "Layers": ["1/layer.tar", "2/layer.tar"]},
    ]
    archive = tar(
        ("manifest.json", json.dumps(rows).encode()), ("a.json", config_of(LAYERS[:1])), ("b.json", config_of(LAYERS)),
        ("1/layer.tar", LAYERS[0]), ("2/layer.tar", tar(("x", b"y"))),
    )  # fmt: skip
    with pytest.raises(DigestMismatch, match="invalid diffID for layer 1"):
        real.load(archive)
    assert [key.familiar() for key in real.tags.all()] == ["good:1"]
    assert len(real.layers.layers()) == 1


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("alpine-3.10.tar.gz", "af341ccd2df8"),
        ("busybox-1.34.1.tar", "9d5226e6ce3f"),
        ("whiteout-4-layers.tar", "f6cc76b32764"),
        ("hello-world-amd64.tar", "feb5d9fea6a5"),
    ],
)
def test_published_images_have_their_published_ids(real: Real, shared_images: Path, name: str, image: str) -> None:
    (loaded,) = real.load((shared_images / name).read_bytes())
    assert loaded.image[7:19] == image
    saved = real.save(loaded.references[0].familiar())
    assert saved == real.save(loaded.references[0].familiar())
    real.tags.remove(loaded.references[0])
    real.images.delete(loaded.image)
    assert real.is_empty()
    assert real.load(saved) == [loaded]


@pytest.mark.parametrize("where", ["tmp", "overlay2"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, pool: WorkerPool, where: str) -> None:
    full = tmp_path / where
    full.mkdir()
    mount(Mount("tmpfs", "tmpfs", full, data="size=256k"))
    try:
        stores = Real(tmp_path, "overlay2", pool)
        big = tar(("big", bytes(range(256)) * 4096))
        with pytest.raises(StorageFull, match="no space left on device"):
            stores.load(docker_archive([big]))
        assert stores.is_empty()
        stores.close()
    finally:
        unmount(full)
