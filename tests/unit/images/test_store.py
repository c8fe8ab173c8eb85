"""The image store: what is kept, what is refused, what goes with what."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lamina.errors import InvalidManifest, NoSuchImage, NoSuchLayer
from lamina.images.store import ImageStore
from lamina.oci.digest import ChainId
from tests.unit.images.stores import Plain, config, diff


def reopened(plain: Plain) -> tuple[ImageStore, list[str]]:
    plain.layers.holds.clear()
    store = ImageStore(plain.directory / "imagedb", plain.layers)
    return store, store.load()


def content(plain: Plain, image: str) -> Path:
    return plain.directory / "imagedb" / "content" / "sha256" / image.removeprefix("sha256:")


def test_an_image_is_its_exact_bytes(plain: Plain) -> None:
    image = plain.add("a", "b")
    assert content(plain, image).read_bytes() == config("a", "b")
    assert content(plain, image).stat().st_mode & 0o777 == 0o600
    store, warnings = reopened(plain)
    assert warnings == []
    assert store.get(image).raw == config("a", "b")


def test_an_image_holds_its_top_layer_once(plain: Plain) -> None:
    image = plain.add("a", "b")
    assert plain.add("a", "b") == image
    top = plain.images.get(image).top
    assert top is not None
    assert plain.layers.holds == {top: 1}
    reopened(plain)
    assert plain.layers.holds == {top: 1}


def test_deleting_an_image_says_which_layers_went(plain: Plain) -> None:
    shared, image = plain.add("a"), plain.add("a", "b")
    gone = plain.images.delete(image)
    assert len(gone) == 1
    assert not content(plain, image).exists()
    assert plain.images.delete(shared) == (diff("a"),)
    with pytest.raises(NoSuchImage):
        plain.images.get(image)
    with pytest.raises(NoSuchImage):
        plain.images.delete(image)


def test_an_image_without_its_layers_is_refused_and_leaves_nothing(plain: Plain) -> None:
    with pytest.raises(NoSuchLayer):
        plain.images.put(config("nowhere"))
    assert plain.images.ids() == []
    assert list((plain.directory / "imagedb" / "content" / "sha256").iterdir()) == []


def test_what_is_no_config_is_refused(plain: Plain) -> None:
    with pytest.raises(InvalidManifest):
        plain.images.put(b"{}")


def test_what_is_remembered_beside_an_image_survives_a_start(plain: Plain) -> None:
    parent, child = plain.add("a"), plain.add("a", "b")
    plain.images.set_parent(child, parent)
    plain.images.set_last_updated(child, "2024-01-02T03:04:05.678901234+01:00")
    plain.images.set_built_locally(child)
    for store in (plain.images, reopened(plain)[0]):
        assert (store.parent(child), store.children(parent)) == (parent, [child])
        assert store.last_updated(child) == "2024-01-02T03:04:05.678901234+01:00"
        assert store.built_locally(child)
        assert not store.built_locally(parent)
    metadata = plain.directory / "imagedb" / "metadata" / "sha256" / child.removeprefix("sha256:")
    assert (metadata / "parent").read_bytes() == parent.encode()
    assert (metadata / "builtLocally").read_bytes() == b"\x01"


def test_a_child_loses_its_parent_with_the_parent(plain: Plain) -> None:
    parent, child = plain.add("a"), plain.add("a", "b")
    plain.images.set_parent(child, parent)
    plain.images.delete(parent)
    assert plain.images.parent(child) is None
    assert reopened(plain)[0].parent(child) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"rootfs":{"type":"layers","diff_ids":[]}}'])
def test_damaged_content_is_left_out_and_left_in_place(plain: Plain, damage: bytes) -> None:
    good, bad = plain.add("a"), plain.add("b")
    content(plain, bad).write_bytes(damage)
    store, warnings = reopened(plain)
    assert store.ids() == [good]
    assert len(warnings) == 1
    assert content(plain, bad).exists()


def test_an_image_whose_layers_are_lost_is_left_out(plain: Plain) -> None:
    image = plain.add("a")
    plain.layers.parents.clear()
    store, warnings = reopened(plain)
    assert store.ids() == []
    assert "layers are not there" in warnings[0]
    assert content(plain, image).exists()


def test_files_that_are_no_images_are_passed_over(plain: Plain) -> None:
    (plain.directory / "imagedb" / "content" / "sha256" / ".tmp-x123").write_bytes(b"half")
    assert reopened(plain)[1] == []


def test_an_id_may_be_cut_short_as_long_as_it_is_clear(plain: Plain) -> None:
    images = [plain.add(f"layer {number}") for number in range(40)]
    image = images[0]
    assert plain.images.resolve_prefix(image) == image
    assert plain.images.resolve_prefix(image[7:]) == image
    assert plain.images.resolve_prefix(image[7:19]) == image
    for text in ("", "sha256:", "zz", image + "0", image[7:].upper(), "../x"):
        with pytest.raises(NoSuchImage):
            plain.images.resolve_prefix(text)
    firsts = [found[7] for found in images]
    twice = next(first for first in firsts if firsts.count(first) > 1)
    with pytest.raises(NoSuchImage) as caught:
        plain.images.resolve_prefix(twice)
    assert "image ids begin with" in caught.value.hint


class _Stuck:
    """Layers whose hold takes until it is told to go on: what a slow disk is like."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def exists(self, chain_id: ChainId) -> bool:
        del chain_id
        return True

    def hold(self, chain_id: ChainId) -> None:
        del chain_id
        self.reached.set()
        assert self.go_on.wait(10)

    def release(self, chain_id: ChainId) -> tuple[ChainId, ...]:
        del chain_id
        return ()


def test_looking_does_not_wait_for_who_writes(tmp_path: Path) -> None:
    stuck = _Stuck()
    store = ImageStore(tmp_path, stuck)
    store.load()
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(store.put, config("a"))
        assert stuck.reached.wait(10)
        looking = threads.submit(store.ids)
        try:
            assert looking.result(5) == []
        finally:
            stuck.go_on.set()
        assert store.exists(writing.result(10))
