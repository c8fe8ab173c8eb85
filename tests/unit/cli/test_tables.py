"""Tables, sizes and times read as docker's do, fit the terminal, and never move it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.cli import tables
from lamina.errors import InvalidArgument

COLUMNS: tables.Columns = {
    "Name": ("NAME", lambda item: item["name"]),
    "Labels": ("LABELS", lambda item: tables.pairs(item.get("Labels"))),
}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1239772, "1.24MB"),
        (999_600, "1MB"),
        (714_000_000, "714MB"),
        (5e15, "5000TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert tables.size(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(64 << 20, "64MiB"), (1023 << 10, "1023KiB"), (25_278_000_000, "23.54GiB")]
)
def test_binary_sizes(count: float, text: str) -> None:
    assert tables.size(count, binary=True, digits=4) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (3599, "59 minutes"),
     (3600, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (14 * 86400, "2 weeks"),
     (60 * 86400, "2 months"), (729 * 86400, "24 months"), (731 * 86400, "2 years")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_go_times() -> None:
    assert tables.go_time("2026-01-31T10:00:00.5Z") == "2026-01-31 10:00:00.5 +0000 UTC"
    assert tables.go_time("2026-01-31T10:00:00+01:00") == "2026-01-31 10:00:00 +0100 +0100"
    assert tables.go_time("never") == "never"


def test_columns_are_aligned_as_docker_aligns_them() -> None:
    assert tables.table(["A", "LONG HEADER", "C"], [["x", "y", "z"], ["x" * 9, "", ""]]) == [
        "A           LONG HEADER   C",
        "x           y             z",
        "xxxxxxxxx                 ",
    ]


@given(
    st.integers(30, 120),
    st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60)), max_size=5),
)
def test_a_table_fits_the_terminal(width: int, rows: list[tuple[str, str, str]]) -> None:
    for line in tables.table(["ONE", "TWO", "THREE"], rows, width):
        assert len(line) <= width


@given(st.text())
def test_no_text_reaches_the_terminal_as_a_command(text: str) -> None:
    for shown in (tables.harmless(text), tables.json_text({"a": text}), *tables.table(["A"], [[text]])):
        assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown)


@given(st.text())
def test_json_stays_the_same_value(text: str) -> None:
    assert json.loads(tables.json_text([text], indent=4)) == [text]


def test_hostile_labels_in_every_format() -> None:
    item = {"name": "web", "Labels": {"a": "\x1b]0;owned\x07\nnext"}}
    for template in (None, "table", "json", "{{.Labels}}", "table {{.Labels}}", '{{.Label "a"}}'):
        for line in tables.listing([item], COLUMNS, ["Name", "Labels"], template=template):
            assert "\x1b" not in line
            assert "\x07" not in line
    assert tables.formatted(item, "{{.Labels.a}}") == "\\x1b]0;owned\\x07\nnext"


def test_templates_of_listings() -> None:
    item = {"name": "web", "Labels": {"a": "1", "b": "2"}}
    names = ["Name", "Labels"]
    assert tables.listing([item], COLUMNS, names, template="{{.Name}}: {{.Labels}}") == ["web: a=1,b=2"]
    assert tables.listing([item], COLUMNS, names, template="json") == ['{"Labels":"a=1,b=2","Name":"web"}']
    assert tables.listing([item], COLUMNS, names, template=r"table {{.Name}}\t{{.Labels}}") == [
        "NAME      LABELS",
        "web       a=1,b=2",
    ]
    assert tables.listing([item], COLUMNS, names, template='{{.Label "b"}}') == ["2"]
    for objects in ([], [item]):
        with pytest.raises(InvalidArgument, match="Nope"):
            tables.listing(objects, COLUMNS, names, template="{{.Nope}}")
