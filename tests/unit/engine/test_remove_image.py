"""Untagging and deleting: Docker's rules and Docker's texts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.clock import SystemClock
from lamina.engine.remove_image import ImageUse, RemoveImage
from lamina.engine.tag import Tag
from lamina.errors import Conflict, NoSuchImage
from lamina.oci.reference import parse_reference
from lamina.workers import Workers
from tests.unit.images.stores import Plain, diff

DIGEST = "sha256:" + "d" * 64
BOX = "b" * 64


class Scene:
    """Stores, containers that use images, and what the world was told."""

    def __init__(self, directory: Path) -> None:
        self.plain = Plain(directory)
        self.uses: dict[str, list[ImageUse]] = {}
        self.told: list[tuple[str, str, str]] = []
        self.verb = RemoveImage(
            self.plain.images, self.plain.tags, self.plain.lookup, lambda image: self.uses.get(image, []), Workers(),
            lambda kind, action, actor, attributes: self.told.append((kind, action, actor)),
        )  # fmt: skip

    def image(self, layer: str, *names: str) -> str:
        image = self.plain.add(layer)
        self.name(image, *names)
        return image

    def name(self, image, *names: str) -> None:
        for text in names:
            reference = parse_reference(text)
            if reference.digest:
                self.plain.tags.set_digest(reference, image)
            else:
                self.plain.tags.set_tag(reference, image)

    def remove(self, text: str, *, force: bool = False, prune: bool = True) -> list[tuple[str, str]]:
        rows = asyncio.run(self.verb(text, force=force, prune=prune))
        return [item for row in rows for item in row.items()]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    return Scene(tmp_path)


def test_the_last_name_takes_the_image_and_its_layers_with_it(scene: Scene) -> None:
    image = scene.image("a", "x:1")
    assert scene.remove("x:1") == [("Untagged", "x:1"), ("Deleted", image), ("Deleted", diff("a"))]
    assert scene.told == [("image", "untag", image), ("image", "delete", image)]
    with pytest.raises(NoSuchImage):
        scene.remove("x:1")


def test_one_name_of_several_is_only_taken_away(scene: Scene) -> None:
    image = scene.image("a", "x:1", "y:1")
    assert scene.remove("x:1") == [("Untagged", "x:1")]
    assert scene.plain.images.exists(image)


def test_the_last_tag_of_a_repository_takes_its_digests(scene: Scene) -> None:
    image = scene.image("a", "x", f"x@{DIGEST}", "y:1")
    assert scene.remove("x") == [("Untagged", "x:latest"), ("Untagged", f"x@{DIGEST}")]
    assert scene.remove("y:1")[1] == ("Deleted", image)


def test_by_id_with_one_name(scene: Scene) -> None:
    image = scene.image("a", "x:1", f"x@{DIGEST}")
    assert scene.remove(image[7:19]) == [
        ("Untagged", "x:1"), ("Untagged", f"x@{DIGEST}"), ("Deleted", image), ("Deleted", diff("a")),
    ]  # fmt: skip


def test_by_id_with_several_names_needs_force(scene: Scene) -> None:
    image = scene.image("a", "x:1", "y:1")
    short = image[7:19]
    with pytest.raises(Conflict) as caught:
        scene.remove(short)
    assert str(caught.value) == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    assert scene.remove(short, force=True)[:3] == [("Untagged", "x:1"), ("Untagged", "y:1"), ("Deleted", image)]


def test_a_stopped_container_keeps_the_last_name_unless_forced(scene: Scene) -> None:
    image = scene.image("a", "x:1")
    scene.uses[image] = [ImageUse(BOX, is_running=False)]
    with pytest.raises(Conflict) as caught:
        scene.remove("x:1")
    assert str(caught.value) == (
        f'conflict: unable to remove repository reference "x:1" (must force) - container {BOX[:12]} is using its '
        f"referenced image {image[7:19]}"
    )
    with pytest.raises(Conflict, match=rf"\(must be forced\) - image is being used by stopped container {BOX[:12]}"):
        scene.remove(image)
    assert scene.remove("x:1", force=True)[1] == ("Deleted", image)


def test_a_running_container_keeps_the_image_whatever_force_says(scene: Scene) -> None:
    image = scene.image("a", "x:1")
    scene.uses[image] = [ImageUse(BOX, is_running=True)]
    with pytest.raises(Conflict, match=rf"\(cannot be forced\) - image is being used by running container {BOX[:12]}"):
        scene.remove(image, force=True)
    assert scene.remove("x:1", force=True) == [("Untagged", "x:1")]
    assert scene.plain.images.exists(image)


def test_an_image_with_children_stays(scene: Scene) -> None:
    image = scene.image("a", "x:1")
    child = scene.plain.add("a", "b")
    scene.plain.images.set_parent(child, image)
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        scene.remove(image, force=True)
    assert scene.remove("x:1") == [("Untagged", "x:1")]
    assert scene.plain.images.exists(image)


def test_unnamed_unused_parents_go_too_unless_told_not_to(scene: Scene) -> None:
    for prune in (True, False):
        grand, parent, child = scene.plain.add("a"), scene.plain.add("a", "b"), scene.plain.add("a", "b", "c")
        scene.plain.images.set_parent(parent, grand)
        scene.plain.images.set_parent(child, parent)
        scene.name(grand, "base:1")
        gone = [
            value for key, value in scene.remove(child, prune=prune) if key == "Deleted" and value in (child, parent)
        ]
        assert gone == ([child, parent] if prune else [child])
        assert scene.plain.images.exists(grand)


def test_a_name_that_comes_while_the_image_goes_does_not_outlive_it(scene: Scene) -> None:
    image = scene.image("a", "x:1")
    release = scene.plain.layers.release

    def release_and_name(chain):
        scene.name(image, "late:1")  # as a load in another thread may
        return release(chain)

    scene.plain.layers.release = release_and_name
    assert ("Untagged", "late:1") in scene.remove("x:1")
    assert scene.plain.tags.all() == {}


def test_an_image_that_went_gets_no_name(scene: Scene) -> None:
    image = scene.image("a", "x:1")
    plain = scene.plain
    tag = Tag(plain.images, plain.tags, plain.lookup, SystemClock(), Workers(), lambda *event: None)
    scene.remove("x:1")
    with pytest.raises(NoSuchImage):
        tag.tag_image(image, parse_reference("late:1"))
    assert plain.tags.all() == {}
