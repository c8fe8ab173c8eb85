"""Volumes as verbs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.engine.volumes import CreateVolume, InspectVolume, ListVolumes, RemoveVolume
from lamina.errors import Conflict, InvalidArgument, NoSuchVolume
from lamina.jsonvalue import objects
from lamina.volumes.store import VolumeStore
from lamina.workers import Workers


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[VolumeStore]:
    found = VolumeStore(tmp_path / "volumes")
    found.open()
    found.create("one", labels={"a": "1"})
    found.create("two", labels={"a": "2", "b": ""})
    found.hold("two", "c" * 64)
    yield found
    found.close()


@pytest.fixture
def workers() -> Iterator[Workers]:
    found = Workers(1)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["one", "two"]),
        ({"name": ("on",)}, ["one"]),
        ({"label": ("a",)}, ["one", "two"]),
        ({"label": ("a=2",)}, ["two"]),
        ({"label": ("a=1", "b")}, []),
        ({"dangling": ("true",)}, ["one"]),
        ({"dangling": ("0",)}, ["two"]),
        ({"driver": ("local",)}, ["one", "two"]),
        ({"driver": ("nfs",)}, []),
    ],
)
def test_filters_choose(volumes: VolumeStore, workers: Workers, filters, expected: list[str]) -> None:
    found = asyncio.run(ListVolumes(volumes, workers)(filters))
    assert [volume["Name"] for volume in objects(found, "Volumes")] == expected


def test_an_unknown_filter_is_refused(volumes: VolumeStore, workers: Workers) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter 'size'"):
        asyncio.run(ListVolumes(volumes, workers)({"size": ("1",)}))


def test_a_volume_is_made_shown_and_removed_and_the_world_is_told(volumes: VolumeStore, workers: Workers) -> None:
    told: list[tuple[str, str, str]] = []

    def publish(kind: str, action: str, actor: str, _: object) -> None:
        told.append((kind, action, actor))

    made = asyncio.run(CreateVolume(volumes, workers, publish)("new", driver="", labels={"x": "y"}, options={}))
    assert made == asyncio.run(InspectVolume(volumes, workers)("new"))
    assert (made["Driver"], made["Scope"], made["Labels"], made["Options"]) == ("local", "local", {"x": "y"}, None)
    asyncio.run(RemoveVolume(volumes, workers, publish)("new", force=False))
    assert told == [("volume", "create", "new"), ("volume", "destroy", "new")]
    with pytest.raises(NoSuchVolume):
        asyncio.run(InspectVolume(volumes, workers)("new"))
    with pytest.raises(Conflict):
        asyncio.run(RemoveVolume(volumes, workers, publish)("two", force=True))
