"""Removing what nobody uses: what goes, what stays, what the world is told."""

from __future__ import annotations

import asyncio
import io

import pytest

from lamina.containers.state import Status
from lamina.engine.prune_containers import PruneContainers
from lamina.engine.prune_images import PruneImages
from lamina.engine.prune_volumes import PruneVolumes
from lamina.engine.remove_image import ImageUse, RemoveImage
from lamina.errors import Conflict, InvalidArgument
from lamina.images.lookup import ImageLookup
from lamina.oci.config import encode_config
from lamina.oci.digest import ImageId
from lamina.oci.reference import parse_reference
from lamina.volumes.store import ANONYMOUS_LABEL
from tests.unit.engine.stores import RUN, Stores, tar_of

pytestmark = pytest.mark.root


def prune_containers(stores: Stores, filters=None, in_use: frozenset[str] = frozenset()) -> dict:
    async def remove(ref: str, force: bool = False, volumes: bool = False) -> None:
        assert (force, volumes) == (False, False)
        if ref in in_use:
            raise Conflict("started meanwhile")
        container = stores.containers.resolve(ref)
        stores.layers.remove_rw(container.id)
        stores.containers.forget(container)

    verb = PruneContainers(stores.containers, stores.layers, remove, stores.clock, stores.workers, stores.publish)
    return asyncio.run(verb(filters or {}))


def test_containers_that_do_not_run_go_and_their_bytes_are_counted(stores: Stores) -> None:
    box, live, frozen = stores.container("box"), stores.container("live"), stores.container("frozen")
    live.state.status, frozen.state.status = Status.RUNNING, Status.PAUSED
    stores.write(box, "big", "x" * 5000)
    assert prune_containers(stores) == {"ContainersDeleted": [box.id], "SpaceReclaimed": 5000}
    assert {one.name for one in stores.containers.all()} == {"live", "frozen"}
    assert stores.told == [("container", "prune", "", {"reclaimed": "5000"})]
    assert prune_containers(stores) == {"ContainersDeleted": None, "SpaceReclaimed": 0}


def test_a_container_that_is_started_meanwhile_stays_and_the_others_go(stores: Stores) -> None:
    boxes = [stores.container(f"box{at}") for at in range(3)]
    found = prune_containers(stores, in_use=frozenset({boxes[1].id}))
    assert set(found["ContainersDeleted"]) == {boxes[0].id, boxes[2].id}


@pytest.mark.parametrize(
    ("filters", "goes"),
    [({"until": ("2020-06-01T00:00:00Z",)}, True), ({"until": ("2019-06-01T00:00:00Z",)}, False),
     ({"label": ("made=here",)}, True), ({"label!": ("made",)}, False)],
)  # fmt: skip
def test_filters_choose_containers(stores: Stores, filters, goes: bool) -> None:
    box = stores.container()
    assert prune_containers(stores, filters)["ContainersDeleted"] == ([box.id] if goes else None)
    with pytest.raises(InvalidArgument, match="invalid filter 'name'"):
        prune_containers(stores, {"name": ("box",)})


def add_image(stores: Stores, name: str | None, size: int) -> ImageId:
    layer = stores.layers.register(io.BytesIO(tar_of({f"file{size}": b"y" * size})), None)
    raw = encode_config({
        "architecture": "amd64", "os": "linux", "config": {**RUN, "Labels": {"n": str(size)}},
        "created": "2021-01-01T00:00:00Z", "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}, "history": [],
    })  # fmt: skip
    image = stores.images.put(raw)
    stores.layers.release(layer.chain_id)
    if name is not None:
        stores.tags.set_tag(parse_reference(name), image)
    return image


def prune_images(stores: Stores, filters=None, used: frozenset[str] = frozenset()) -> dict:
    def uses(image: ImageId) -> list[ImageUse]:
        return [ImageUse("c" * 64, is_running=False)] if image in used else []

    remove = RemoveImage(
        stores.images, stores.tags, ImageLookup(stores.images, stores.tags), uses, stores.workers, stores.publish
    )
    verb = PruneImages(stores.images, stores.tags, stores.layers, uses, remove, stores.clock, stores.publish)
    return asyncio.run(verb(filters or {}))


def test_only_images_without_a_tag_go_unless_asked(stores: Stores) -> None:
    stores.tags.set_tag(parse_reference("kept:1"), stores.image)
    bare, named = add_image(stores, None, 100), add_image(stores, "named:1", 200)
    found = prune_images(stores)
    assert found["SpaceReclaimed"] == 100
    assert {"Deleted": bare} in found["ImagesDeleted"]
    assert stores.images.exists(named)
    assert stores.told[-1] == ("image", "prune", "", {"reclaimed": "100"})
    found = prune_images(stores, {"dangling": ("false",)}, used=frozenset({stores.image}))
    assert found["SpaceReclaimed"] == 200
    assert {"Untagged": "named:1"} in found["ImagesDeleted"]
    assert stores.images.ids() == [stores.image]
    nothing = prune_images(stores, {"dangling": ("false",)}, used=frozenset({stores.image}))
    assert nothing == {"ImagesDeleted": None, "SpaceReclaimed": 0}


def test_an_image_in_use_keeps_all_its_names(stores: Stores) -> None:
    for name in ("kept:1", "kept:2", "other:1"):
        stores.tags.set_tag(parse_reference(name), stores.image)
    prune_images(stores, {"dangling": ("false",)}, used=frozenset({stores.image}))
    assert {one.familiar() for one in stores.tags.references(stores.image)} == {"kept:1", "kept:2", "other:1"}


def test_every_name_of_an_image_is_taken_away(stores: Stores) -> None:
    stores.tags.set_tag(parse_reference("kept:1"), stores.image)
    image = add_image(stores, "a:1", 300)
    stores.tags.set_tag(parse_reference("b:1"), image)
    stores.tags.set_digest(parse_reference("b@sha256:" + "d" * 64), image)
    found = prune_images(stores, {"dangling": ("false",), "label": ("n=300",)})
    assert {"Deleted": image} in found["ImagesDeleted"]
    assert stores.images.ids() == [stores.image]


def test_an_image_that_others_stand_on_stays(stores: Stores) -> None:
    child = add_image(stores, "child:1", 400)
    stores.images.set_parent(child, stores.image)
    assert prune_images(stores) == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    assert set(stores.images.ids()) == {child, stores.image}


def prune_volumes(stores: Stores, filters=None) -> dict:
    return asyncio.run(PruneVolumes(stores.volumes, stores.clock, stores.workers, stores.publish)(filters or {}))


def test_anonymous_volumes_that_nobody_holds_go_and_named_ones_when_asked(stores: Stores) -> None:
    anonymous, held = stores.volumes.create(), stores.volumes.create()
    named = stores.volumes.create("named", labels={"a": "1"})
    stores.volumes.hold(held.name, "c" * 64)
    (anonymous.mountpoint / "data").write_bytes(b"z" * 70)
    (named.mountpoint / "data").write_bytes(b"z" * 7)
    assert ANONYMOUS_LABEL in anonymous.labels
    assert prune_volumes(stores) == {"VolumesDeleted": [anonymous.name], "SpaceReclaimed": 70}
    assert stores.told == [
        ("volume", "destroy", anonymous.name, {"driver": "local"}), ("volume", "prune", "", {"reclaimed": "70"})
    ]  # fmt: skip
    assert prune_volumes(stores, {"all": ("true",), "label": ("a=2",)})["VolumesDeleted"] is None
    assert prune_volumes(stores, {"all": ("true",)}) == {"VolumesDeleted": ["named"], "SpaceReclaimed": 7}
    assert [volume.name for volume in stores.volumes.list()] == [held.name]
    with pytest.raises(InvalidArgument, match="invalid filter 'until'"):
        prune_volumes(stores, {"until": ("1h",)})
