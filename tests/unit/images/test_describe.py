"""Images as clients see them."""

from __future__ import annotations

import pytest

from lamina.images.describe import ZERO_SECONDS, created_ns, history, inspection, summary
from lamina.oci.reference import parse_reference
from tests.unit.images.stores import Plain, diff


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2023-11-14T22:13:20.000000001Z", 1_700_000_000_000_000_001),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500_000_000),
        ("2023-11-14T21:43:20-00:30", 1_700_000_000_000_000_000),
        ("0001-01-01T00:00:00Z", ZERO_SECONDS * 1_000_000_000),
        ("", ZERO_SECONDS * 1_000_000_000),
        ("yesterday", ZERO_SECONDS * 1_000_000_000),
        ("2023-13-99T00:00:00Z", ZERO_SECONDS * 1_000_000_000),
    ],
)
def test_times_of_go(text: str, expected: int) -> None:
    assert created_ns(text) == expected


def test_history_is_newest_first_and_knows_its_own_images(plain: Plain) -> None:
    steps = [
        {"created": "2023-11-14T22:13:20Z", "created_by": "base"},
        {"created": "2023-11-14T22:13:21Z", "created_by": "env", "empty_layer": True, "comment": "c"},
        {"created": "2023-11-14T22:13:22Z", "created_by": "top"},
    ]
    parent = plain.add("a", history=steps[:2])
    image = plain.add("a", "b", history=steps)
    plain.images.set_parent(image, parent)
    plain.tags.set_tag(parse_reference("x:1"), image)
    rows = history(image, plain.images, plain.tags, plain.layers)
    assert [(row["Id"], row["CreatedBy"], row["Size"], row["Tags"]) for row in rows] == [
        (image, "top", 100, ["x:1"]),
        (parent, "env", 0, None),
        ("<missing>", "base", 100, None),
    ]
    assert rows[0]["Created"] == 1_700_000_002


def test_an_image_without_history_has_none(plain: Plain) -> None:
    assert history(plain.add("a", history=None), plain.images, plain.tags, plain.layers) == []


def test_a_row_of_the_list(plain: Plain) -> None:
    image = plain.add("a", "b", config={"Labels": {"k": "v"}})
    digest = "sha256:" + "d" * 64
    references = [parse_reference("x:1"), parse_reference(f"x@{digest}")]
    assert summary(image, references, plain.images, plain.layers) == {
        "Containers": -1,
        "Created": 1_700_000_000,
        "Id": image,
        "Labels": {"k": "v"},
        "ParentId": "",
        "RepoDigests": [f"x@{digest}"],
        "RepoTags": ["x:1"],
        "SharedSize": -1,
        "Size": 200,
    }


def test_inspection_shows_config_layers_and_driver(plain: Plain) -> None:
    image = plain.add("a", variant="v8", author="me")
    plain.images.set_last_updated(image, "2024-01-02T03:04:05Z")
    shown = inspection(image, plain.images, plain.tags, plain.layers, driver=("vfs", {"Dir": "/x"}))
    assert shown["Config"] == {"Cmd": ["/x"]}
    assert shown["RootFS"] == {"Type": "layers", "Layers": [diff("a")]}
    assert shown["GraphDriver"] == {"Data": {"Dir": "/x"}, "Name": "vfs"}
    assert (shown["Variant"], shown["Author"], shown["Size"]) == ("v8", "me", 100)
    assert shown["Metadata"] == {"LastTagTime": "2024-01-02T03:04:05Z"}
