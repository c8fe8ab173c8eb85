"""The list of images and its filters."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lamina.engine.list_images import ListImages, moment_ns
from lamina.errors import InvalidArgument, NoSuchImage
from lamina.jsonvalue import JsonObject
from lamina.oci.reference import parse_reference
from tests.unit.images.stores import Plain

NOW = 1_700_000_000_000_000_000
DIGEST = "sha256:" + "d" * 64


class Still:
    def now_ns(self) -> int:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class Shelf:
    def __init__(self, directory: Path) -> None:
        self.plain = Plain(directory)
        add = self.plain.add
        self.old = add("a", created="2020-01-01T00:00:00Z", config={"Labels": {"stage": "old", "k": ""}})
        self.middle = add("a", "b", created="2021-01-01T00:00:00Z")
        self.new = add("a", "b", "c", created="2022-01-01T00:00:00Z", config={"Labels": {"stage": "new"}})
        self.unnamed = add("d", created="2023-01-01T00:00:00Z")
        for text, image in (("old:1", self.old), ("quay.io/team/new:v2", self.new), ("new:v1", self.new)):
            self.plain.tags.set_tag(parse_reference(text), image)
        self.plain.tags.set_digest(parse_reference(f"old@{DIGEST}"), self.old)
        self.plain.images.set_parent(self.new, self.middle)
        self.verb = ListImages(self.plain.images, self.plain.tags, self.plain.lookup, self.plain.layers, Still())

    def rows(self, **more: object) -> list[JsonObject]:
        return asyncio.run(self.verb(**more))  # type: ignore[arg-type]

    def ids(self, **filters: str) -> list[object]:
        return [row["Id"] for row in self.rows(filters={key: (value,) for key, value in filters.items()})]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_newest_first_without_unnamed_parents_of_others(shelf: Shelf) -> None:
    assert [row["Id"] for row in shelf.rows()] == [shelf.unnamed, shelf.new, shelf.old]
    assert [row["Id"] for row in shelf.rows(all=True)] == [shelf.unnamed, shelf.new, shelf.middle, shelf.old]
    row = shelf.rows()[2]
    assert (row["RepoTags"], row["RepoDigests"], row["Size"]) == (["old:1"], [f"old@{DIGEST}"], 100)


def test_filters(shelf: Shelf) -> None:
    assert shelf.ids(dangling="true") == [shelf.unnamed]
    assert shelf.ids(dangling="false") == [shelf.new, shelf.old]
    assert shelf.ids(label="stage") == [shelf.new, shelf.old]
    assert shelf.ids(label="stage=new") == [shelf.new]
    assert shelf.ids(label="k=") == [shelf.old]
    assert shelf.ids(label="k=x") == []
    assert shelf.ids(before="new:v1") == [shelf.old]
    assert shelf.ids(since="old:1") == [shelf.unnamed, shelf.new]
    assert shelf.ids(until="2020-06-01T00:00:00Z") == [shelf.old]


def test_the_reference_filter_leaves_only_names_that_fit(shelf: Shelf) -> None:
    (row,) = shelf.rows(filters={"reference": ("quay.io/*/new",)})
    assert row["RepoTags"] == ["quay.io/team/new:v2"]
    assert shelf.ids(reference="new") == [shelf.new]
    assert shelf.ids(reference="*:1") == [shelf.old]
    assert shelf.ids(reference="[no]*:v?") == [shelf.new]
    assert shelf.ids(reference="quay.io/*") == []


def test_what_makes_no_sense_is_refused(shelf: Shelf) -> None:
    for filters in ({"colour": ("red",)}, {"dangling": ("maybe",)}, {"until": ("soon",)}, {"reference": ("[x",)}):
        with pytest.raises(InvalidArgument):
            shelf.rows(filters=filters)
    with pytest.raises(NoSuchImage):
        shelf.ids(before="gone")


def test_shared_sizes_are_counted_on_request(shelf: Shelf) -> None:
    sizes = {row["Id"]: row["SharedSize"] for row in shelf.rows(all=True, shared_size=True)}
    assert sizes == {shelf.unnamed: 0, shelf.new: 200, shelf.middle: 200, shelf.old: 100}
    assert {row["SharedSize"] for row in shelf.rows()} == {-1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10m", NOW - 600 * 10**9), ("1h30m", NOW - 5400 * 10**9), ("5", 5 * 10**9), ("5.25", 5_250_000_000)],
)
def test_moments(text: str, expected: int) -> None:
    assert moment_ns(text, NOW) == expected
