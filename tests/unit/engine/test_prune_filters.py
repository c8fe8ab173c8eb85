"""Which objects a prune takes."""

from __future__ import annotations

import pytest

from lamina.engine.prune_filters import flag, prune_choice
from lamina.errors import InvalidArgument

KNOWN = {"until", "label", "label!"}
NOW = 10_000 * 10**9


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({}, True),
        ({"label": ("a",)}, True),
        ({"label": ("a=1", "b")}, True),
        ({"label": ("a=2",)}, False),
        ({"label": ("a", "c")}, False),
        ({"label!": ("a",)}, False),
        ({"label!": ("a=2",)}, True),
        ({"label!": ("a", "c")}, True),
        ({"until": ("10m",)}, True),
        ({"until": ("3h",)}, False),
        ({"until": ("5000",)}, True),
        ({"until": ("1970-01-01T00:00:01Z",)}, False),
    ],
)
def test_age_and_labels_choose(filters, fits: bool) -> None:
    assert prune_choice(filters, KNOWN, NOW).fits(4_000 * 10**9, {"a": "1", "b": ""}) is fits


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"name": ("x",)}, "invalid filter 'name'"),
        ({"until": ("1h", "2h")}, "more than one until filter specified"),
        ({"until": ("soon",)}, "invalid time"),
    ],
)
def test_what_nothing_understands_is_refused(filters, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        prune_choice(filters, KNOWN, NOW)


def test_flags_are_words_of_go() -> None:
    assert flag({}, "dangling", default=True)
    assert not flag({"dangling": ("0",)}, "dangling", default=True)
    assert flag({"all": ("t",)}, "all", default=False)
    with pytest.raises(InvalidArgument, match=r"invalid filter 'all=\[perhaps\]'"):
        flag({"all": ("perhaps",)}, "all", default=False)
