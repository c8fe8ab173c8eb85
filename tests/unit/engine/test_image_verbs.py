"""Load, save, import, tag, history and inspect as verbs: what they answer and what they tell the world."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lamina.engine.history import History
from lamina.engine.import_ import Import
from lamina.engine.inspect_image import InspectImage
from lamina.engine.load import Load
from lamina.engine.save import Save
from lamina.engine.tag import Tag
from lamina.errors import InvalidArgument, InvalidReference, LaminaError, NoSuchImage
from lamina.layers.pool import WorkerPool
from lamina.oci.platform import Platform
from lamina.oci.reference import parse_reference
from lamina.wire.engine.progress import Progress
from lamina.workers import Workers
from tests.unit.images.stores import KNOWN_IMAGE, Plain, Real, docker_archive, known_layers, pieces, sha256

LAYERS = known_layers()


class Still:
    def now_ns(self) -> int:
        return 1_700_000_000_123_000_000

    def monotonic(self) -> float:
        return 0.0


class Verbs:
    def __init__(self, stores: Real) -> None:
        self.stores = stores
        self.told: list[tuple[str, str, str]] = []
        self.steps: list[Progress] = []
        workers = Workers()
        s = stores
        self.load = Load(s.loader, s.images, workers, self.publish)
        self.save = Save(s.saver, s.images, workers, self.publish)
        self.import_ = Import(
            s.layers, s.images, s.tags, Platform("linux", "amd64"), Still(), workers, self.publish, "1.2"
        )
        self.tag = Tag(s.images, s.tags, s.lookup, Still(), workers, self.publish)
        self.inspect = InspectImage(s.images, s.tags, s.lookup, s.layers, s.driver, workers)
        self.history = History(s.images, s.tags, s.lookup, s.layers)

    def publish(self, kind: str, action: str, actor: str, attributes) -> None:
        self.told.append((action, actor, attributes["name"]))


async def sent(data: bytes) -> AsyncIterator[bytes]:
    for piece in pieces(data, 5000):
        yield piece


@pytest.fixture
def verbs(tmp_path: Path) -> Iterator[Verbs]:
    with WorkerPool() as pool:
        stores = Real(tmp_path, "overlay2", pool)
        yield Verbs(stores)
        stores.close()


@pytest.mark.root
def test_load_says_what_was_loaded(verbs: Verbs) -> None:
    archive = docker_archive(LAYERS, names=["known:1", "other:2"])
    asyncio.run(verbs.load(sent(archive), quiet=True, progress=verbs.steps.append))
    assert [step.stream for step in verbs.steps] == ["Loaded image: known:1\n", "Loaded image: other:2\n"]
    assert verbs.told == [("load", KNOWN_IMAGE, KNOWN_IMAGE)]


@pytest.mark.root
def test_load_of_an_image_without_a_name_says_its_id(verbs: Verbs) -> None:
    asyncio.run(verbs.load(sent(docker_archive(LAYERS, names=())), quiet=False, progress=verbs.steps.append))
    assert verbs.steps[-1].stream == f"Loaded image ID: {KNOWN_IMAGE}\n"
    assert verbs.steps[0].status == "Loading layer"


@pytest.mark.root
def test_save_streams_and_what_cannot_be_saved_is_told_first(verbs: Verbs) -> None:
    verbs.stores.load(docker_archive(LAYERS))

    async def saved(*names: str) -> bytes:
        return b"".join([piece async for piece in verbs.save(names)])

    assert asyncio.run(saved("known:1")) == verbs.stores.save("known:1")
    assert verbs.told == [("save", KNOWN_IMAGE, KNOWN_IMAGE)]
    with pytest.raises(NoSuchImage):
        asyncio.run(saved("known:1", "gone"))
    with pytest.raises(InvalidArgument):
        asyncio.run(saved())


@pytest.mark.root
def test_import_makes_an_image_of_one_layer(verbs: Verbs) -> None:
    async def run() -> str:
        return await verbs.import_(
            sent(LAYERS[0]), parse_reference("tree"), message="from a tar", changes=['CMD ["/x"]'], platform=None,
            progress=verbs.steps.append,
        )  # fmt: skip

    image = asyncio.run(run())
    config = verbs.stores.images.get(verbs.stores.lookup.find("tree:latest"))
    assert config.image_id == image
    assert config.diff_ids == (sha256(LAYERS[0]),)
    document = json.loads(config.raw)
    assert list(document) == sorted(document)
    assert document["config"]["Cmd"] == ["/x"]
    assert document["container_config"]["Cmd"] is None
    assert document["history"] == [{"created": "2023-11-14T22:13:20.123Z", "comment": "from a tar"}]
    assert verbs.steps[-1].status == image
    assert verbs.told == [("import", image, "tree")]
    assert len(verbs.stores.images.delete(config.image_id)) == 1


@pytest.mark.root
def test_an_import_without_a_message_says_what_it_is(verbs: Verbs) -> None:
    async def run() -> str:
        return await verbs.import_(
            sent(LAYERS[0]), None, message="", changes=[], platform=Platform("linux", "arm", "v7"),
            progress=verbs.steps.append,
        )  # fmt: skip

    config = verbs.stores.images.get(verbs.stores.lookup.find(asyncio.run(run())))
    assert (config.comment, config.variant) == ("Imported from -", "v7")
    assert verbs.stores.tags.all() == {}


@pytest.mark.root
@pytest.mark.parametrize("data", [b"no tar", LAYERS[0][:900]])
def test_import_of_something_else_leaves_nothing(verbs: Verbs, data: bytes) -> None:
    async def run() -> None:
        await verbs.import_(
            sent(data), parse_reference("x"), message="", changes=[], platform=None, progress=verbs.steps.append
        )

    with pytest.raises(LaminaError):
        asyncio.run(run())
    assert verbs.stores.is_empty()


@pytest.mark.root
def test_import_refuses_what_makes_no_sense_before_it_reads(verbs: Verbs) -> None:
    async def run(name: str, change: str) -> None:
        await verbs.import_(
            sent(b""), parse_reference(name), message="", changes=[change], platform=None, progress=verbs.steps.append
        )

    with pytest.raises(InvalidArgument, match="run is not a valid change command"):
        asyncio.run(run("x", "RUN x"))
    with pytest.raises(InvalidReference):
        asyncio.run(run("x@sha256:" + "0" * 64, "CMD x"))


@pytest.mark.root
def test_tag_history_and_inspect(verbs: Verbs) -> None:
    verbs.stores.load(docker_archive(LAYERS))
    asyncio.run(verbs.tag("known:1", parse_reference("quay.io/alias")))
    assert verbs.told == [("tag", KNOWN_IMAGE, "quay.io/alias:latest")]
    shown = asyncio.run(verbs.inspect("quay.io/alias"))
    assert shown["RepoTags"] == ["known:1", "quay.io/alias:latest"]
    assert shown["Metadata"] == {"LastTagTime": "2023-11-14T22:13:20.123Z"}
    driver = shown["GraphDriver"]
    assert isinstance(driver, dict)
    assert driver["Name"] == "overlay2"
    assert "UpperDir" in driver["Data"]  # type: ignore[operator]
    rows = asyncio.run(verbs.history("known:1"))
    assert [row["CreatedBy"] for row in rows] == ["two", "one"]
    with pytest.raises(NoSuchImage):
        asyncio.run(verbs.tag("gone", parse_reference("x")))


def test_an_image_without_layers_has_no_history_rows_with_layers(tmp_path: Path) -> None:
    plain = Plain(tmp_path)
    image = plain.add(history=[{"created_by": "x", "empty_layer": True}])
    rows = asyncio.run(History(plain.images, plain.tags, plain.lookup, plain.layers)(image))
    assert [(row["CreatedBy"], row["Size"]) for row in rows] == [("x", 0)]
