"""Images out of the stores."""

from __future__ import annotations

import io
import tarfile

import pytest

from lamina.errors import DataLoss, InvalidReference, NoSuchImage
from lamina.images.saving import ImageSaver
from lamina.oci.reference import parse_reference
from tests.unit.images.stores import Plain, Real, docker_archive, known_layers

LAYERS = known_layers()


def saver(plain: Plain) -> ImageSaver:
    return ImageSaver(plain.layers, plain.images, plain.tags, plain.lookup)  # type: ignore[arg-type]


def test_a_bare_name_stands_for_all_its_tags_and_an_id_for_none(plain: Plain) -> None:
    one, two = plain.add("a"), plain.add("b")
    for text, image in (("x:1", one), ("x:2", two), ("x:3", one), ("y:1", two)):
        plain.tags.set_tag(parse_reference(text), image)
    found = {
        image.config.image_id: [key.familiar() for key in image.references]
        for image in saver(plain).find(["x", two[:20], "y:1"])
    }
    assert found == {one: ["x:1", "x:3"], two: ["x:2", "y:1"]}
    (by_id,) = saver(plain).find([one])
    assert by_id.references == ()


def test_a_name_that_means_nothing_is_an_error(plain: Plain) -> None:
    with pytest.raises(NoSuchImage, match="No such image: gone:latest"):
        saver(plain).find(["gone"])
    with pytest.raises(InvalidReference):
        saver(plain).find(["A b"])


@pytest.mark.root
def test_layers_come_out_bit_for_bit(real: Real) -> None:
    real.load(docker_archive(LAYERS))
    with tarfile.open(fileobj=io.BytesIO(real.save("known:1"))) as archive:
        bodies = [archive.extractfile(member).read() for member in archive if member.isfile()]
    assert list(bodies[-2:]) == list(LAYERS)


@pytest.mark.root
def test_a_layer_that_was_tampered_with_is_not_saved(real: Real) -> None:
    real.load(docker_archive(LAYERS))
    for found in (real.root / real.driver.name).rglob("data/a"):
        found.write_bytes(b"B" * 600)
    with pytest.raises(DataLoss):
        real.save("known:1")


@pytest.mark.root
def test_holds_taken_for_saving_are_given_back(real: Real) -> None:
    real.load(docker_archive(LAYERS))
    real.save("known:1")
    image = real.lookup.find("known:1")
    real.tags.remove(parse_reference("known:1"))
    real.images.delete(image)
    assert real.is_empty()
