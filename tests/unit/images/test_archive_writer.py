"""The layout of what save writes."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from lamina.errors import Unsupported
from lamina.images.archive_index import archived_images
from lamina.images.archive_writer import CLOSING, SavedImage, file_header, plan_archive
from lamina.oci.config import decode_config
from lamina.oci.reference import parse_reference
from tests.unit.images.stores import config, diff

ONE = decode_config(config("a", "b"))
TWO = decode_config(config("a", "c", "a"))
SIZES = {diff(name): size for name, size in (("a", 1024), ("b", 1536), ("c", 5))}
IMAGES = [
    SavedImage(ONE, (parse_reference("x:1"), parse_reference("quay.io/y:2"))),
    SavedImage(TWO, (), parent=ONE.image_id),
]


def written() -> bytes:
    plan = plan_archive(IMAGES, SIZES)
    layers = b"".join(layer.header() + b"L" * layer.size_bytes + layer.padding() for layer in plan.layers)
    archive = plan.head + layers + CLOSING
    assert len(archive) == plan.size_bytes
    return archive


def test_it_is_a_tar_with_each_layer_once_and_the_documents_first() -> None:
    with tarfile.open(fileobj=io.BytesIO(written())) as tar:
        names = tar.getnames()
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}
    layers = [f"blobs/sha256/{diff(name)[7:]}" for name in "abc"]
    assert names[-3:] == layers
    assert len(names) == len(set(names))
    assert {"index.json", "manifest.json", "oci-layout", "repositories"} < set(names)


def test_both_readings_give_the_same_images() -> None:
    with tarfile.open(fileobj=io.BytesIO(written())) as tar:
        documents = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
    as_docker = archived_images(documents)
    del documents["manifest.json"]
    as_oci = archived_images(documents)
    assert [(image.config, image.layer_names, image.references) for image in as_docker] == [
        (image.config, image.layer_names, image.references) for image in as_oci
    ]
    assert [image.config.image_id for image in as_docker] == [ONE.image_id, TWO.image_id]
    assert as_docker[1].parent == ONE.image_id


def test_dockers_rows_are_dockers() -> None:
    with tarfile.open(fileobj=io.BytesIO(written())) as tar:
        rows = json.load(tar.extractfile("manifest.json"))
        repositories = json.load(tar.extractfile("repositories"))
    assert rows[0]["RepoTags"] == ["x:1", "quay.io/y:2"]
    assert rows[1]["RepoTags"] is None
    assert next(iter(rows[0]["LayerSources"].values()))["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    assert repositories == {"x": {"1": diff("b")[7:]}, "quay.io/y": {"2": diff("b")[7:]}}


def test_the_same_images_give_the_same_bytes() -> None:
    assert written() == written()


@pytest.mark.parametrize("size", [0, 1, 0o77777777777, 0o77777777777 + 1, 1 << 40])
def test_sizes_beyond_octal_are_read_by_others(size: int) -> None:
    assert tarfile.TarInfo.frombuf(file_header("a", size), "utf-8", "strict").size == size


def test_a_name_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Unsupported):
        file_header("a" * 101, 1)
