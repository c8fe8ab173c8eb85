"""Finding an image by what it is called."""

from __future__ import annotations

import pytest

from lamina.errors import InvalidReference, NoSuchImage
from lamina.oci.reference import parse_reference
from tests.unit.images.stores import Plain

DIGEST = "sha256:" + "d" * 64


def test_every_way_to_call_an_image(plain: Plain) -> None:
    image = plain.add("a")
    plain.tags.set_tag(parse_reference("name"), image)
    plain.tags.set_digest(parse_reference(f"name@{DIGEST}"), image)
    texts = ["name", "name:latest", "docker.io/library/name", f"name@{DIGEST}", f"name:other@{DIGEST}"]
    texts += [image, image[7:], image[7:19], image[:20]]
    for text in texts:
        assert plain.lookup.find(text) == image


def test_a_name_wins_over_the_beginning_of_an_id(plain: Plain) -> None:
    first, second = plain.add("a"), plain.add("b")
    prefix = first[7:13]
    assert plain.lookup.find(prefix) == first
    plain.tags.set_tag(parse_reference(prefix), second)
    assert plain.lookup.find(prefix) == second


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "No such image: nothing:latest"),
        ("nothing:1", "No such image: nothing:1"),
        ("f" * 64, "No such image: " + "f" * 64),
        (f"quay.io/x@{DIGEST}", f"No such image: quay.io/x@{DIGEST}"),
    ],
)
def test_what_is_not_there_is_said_in_dockers_words(plain: Plain, text: str, message: str) -> None:
    with pytest.raises(NoSuchImage) as caught:
        plain.lookup.find(text)
    assert str(caught.value) == message


def test_what_is_no_name_at_all_is_another_error(plain: Plain) -> None:
    with pytest.raises(InvalidReference, match="invalid reference format"):
        plain.lookup.find("a b")


def test_a_tag_of_a_lost_image_means_nothing(plain: Plain) -> None:
    image = plain.add("a")
    plain.tags.set_tag(parse_reference("name"), image)
    plain.images.delete(image)
    with pytest.raises(NoSuchImage):
        plain.lookup.find("name")
    assert plain.lookup.reference_of("name") is None
