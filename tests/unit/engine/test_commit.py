"""An image from a container."""

import asyncio
import io
import json
import tarfile

import pytest

from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.engine.changes import Changes
from lamina.engine.commit import Commit
from lamina.engine.export import Export
from lamina.engine.merge_config import merge_config
from lamina.errors import Conflict, InvalidArgument, NoSuchContainer
from lamina.oci.digest import ImageId
from lamina.oci.reference import Reference, parse_reference
from tests.unit.engine.stores import Stores

pytestmark = pytest.mark.root


class Freezer:
    def __init__(self) -> None:
        self.done: list[str] = []

    async def pause(self, container: Container) -> None:
        self.done.append("pause")

    async def unpause(self, container: Container) -> None:
        self.done.append("unpause")


def commit(
    stores: Stores, freezer: Freezer | None = None, *, reference: Reference | None = None, pause: bool = True,
    changes: tuple[str, ...] = (), config=None,
) -> ImageId:  # fmt: skip
    verb = Commit(
        stores.containers, stores.layers, stores.images, stores.tags, freezer or Freezer(), merge_config, stores.clock,
        stores.workers, stores.publish,
    )  # fmt: skip
    return asyncio.run(verb("box", reference, author="me", message="why", pause=pause, changes=changes, config=config))


def document(stores: Stores, image: ImageId) -> dict:
    return json.loads(stores.images.get(image).raw)


def test_the_image_shows_what_the_container_changed(stores: Stores) -> None:
    box = stores.container()
    stores.write(box, "new/file", "new")
    image = commit(stores, reference=parse_reference("mine"))
    found = document(stores, image)
    assert len(found["rootfs"]["diff_ids"]) == 2
    assert found["history"][-1]["author"] == "me"
    assert found["history"][-1]["comment"] == "why"
    assert found["history"][-1]["created_by"] == "sh"
    assert "comment" not in found
    assert found["container"] == box.id
    assert found["config"]["Cmd"] == ["sh"]
    assert stores.tags.resolve(parse_reference("mine:latest")) == image
    assert stores.images.parent(image) == stores.image
    out = io.BytesIO()
    top = stores.images.get(image).top
    assert top is not None
    stores.layers.write_tar(top, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert tar.getnames() == ["new", "new/file"]
    assert [(kind, action) for kind, action, _, _ in stores.told] == [("image", "tag"), ("container", "commit")]


def test_a_container_that_changed_nothing_adds_no_layer(stores: Stores) -> None:
    stores.container()
    layers = len(stores.layers.layers())
    image = commit(stores)
    found = document(stores, image)
    assert len(found["rootfs"]["diff_ids"]) == 1
    assert found["history"][-1]["empty_layer"] is True
    assert len(stores.layers.layers()) == layers


def test_the_layers_go_when_the_image_does(stores: Stores) -> None:
    box = stores.container()
    layers = len(stores.layers.layers())
    stores.write(box, "new", "new")
    image = commit(stores)
    assert len(stores.layers.layers()) == layers + 1
    stores.images.delete(image)
    assert len(stores.layers.layers()) == layers


def test_changes_are_made_over_the_containers_config(stores: Stores) -> None:
    stores.container()
    image = commit(stores, changes=("ENV A=b", 'CMD ["run"]', "LABEL x=y", "EXPOSE 80", "WORKDIR sub", "USER app"))
    found = document(stores, image)["config"]
    assert found["Env"] == ["PATH=/bin", "A=b"]
    assert found["Cmd"] == ["run"]
    assert found["Labels"] == {"made": "here", "x": "y"}
    assert found["ExposedPorts"] == {"80/tcp": {}}
    assert found["WorkingDir"] == "/w/sub"
    assert found["User"] == "app"
    assert stores.containers.resolve("box").config["Cmd"] == ["sh"]


def test_a_sent_config_is_completed_from_the_container(stores: Stores) -> None:
    stores.container()
    found = document(stores, commit(stores, config={"Cmd": ["other"], "Env": ["X=1"]}))["config"]
    assert found["Cmd"] == ["other"]
    assert found["Env"] == ["X=1", "PATH=/bin"]


def test_a_running_container_stands_still_meanwhile_if_asked(stores: Stores) -> None:
    stores.container().state.status = Status.RUNNING
    freezer = Freezer()
    commit(stores, freezer)
    assert freezer.done == ["pause", "unpause"]
    commit(stores, freezer, pause=False)
    assert freezer.done == ["pause", "unpause"]


class TooLate(Freezer):
    """The command ends in the moment in which its container is frozen, or while it is."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    async def pause(self, container: Container) -> None:
        await super().pause(container)
        if self.at == "pause":
            raise Conflict("not running")

    async def unpause(self, container: Container) -> None:
        await super().unpause(container)
        raise Conflict("not paused")


@pytest.mark.parametrize(("at", "done"), [("pause", ["pause"]), ("unpause", ["pause", "unpause"])])
def test_a_command_that_ends_meanwhile_is_committed_all_the_same(stores: Stores, at: str, done: list[str]) -> None:
    stores.container().state.status = Status.RUNNING
    freezer = TooLate(at)
    assert commit(stores, freezer) in stores.images.ids()
    assert freezer.done == done


def test_what_cannot_be_committed_leaves_nothing(stores: Stores) -> None:
    box = stores.container()
    images, layers = len(stores.images.ids()), len(stores.layers.layers())
    with pytest.raises(InvalidArgument):
        commit(stores, changes=("RUN rm -rf /",))
    box.state.status = Status.DEAD
    with pytest.raises(Conflict):
        commit(stores)
    assert (len(stores.images.ids()), len(stores.layers.layers())) == (images, layers)


def test_changes_are_listed_and_the_root_exported(stores: Stores) -> None:
    box = stores.container()
    stores.write(box, "etc/new", "new")
    found = asyncio.run(Changes(stores.containers, stores.layers, stores.workers)("box"))
    assert found == [{"Path": "/etc", "Kind": 0}, {"Path": "/etc/new", "Kind": 1}]

    async def export() -> bytes:
        chunks = Export(stores.containers, stores.layers, stores.workers, lambda *_: None)("box")
        return b"".join([chunk async for chunk in chunks])

    with tarfile.open(fileobj=io.BytesIO(asyncio.run(export()))) as tar:
        names = tar.getnames()
    assert {"etc/new", "etc/passwd", "data/old", ".dockerenv"} <= set(names)
    with pytest.raises(NoSuchContainer):
        Export(stores.containers, stores.layers, stores.workers, lambda *_: None)("absent")
