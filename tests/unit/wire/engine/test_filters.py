from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InvalidArgument
from lamina.wire.engine.filters import check_names, parse_filters


def test_both_forms_mean_the_same():
    assert parse_filters('{"a":["b","c"]}') == parse_filters('{"a":{"b":true,"c":true}}') == {"a": ("b", "c")}
    assert parse_filters("") == parse_filters("{}") == parse_filters('{"a":[]}') == parse_filters('{"a":null}') == {}
    assert parse_filters('{"a":{"b":false}}') == {}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)))  # fmt: skip
def test_any_json_is_filters_or_refused(value):
    try:
        found = parse_filters(json.dumps(value))
    except InvalidArgument:
        return
    assert all(isinstance(text, str) for values in found.values() for text in values)


def test_unknown_names_are_refused_in_dockers_words():
    check_names({"label": ("x",)}, {"label"})
    with pytest.raises(InvalidArgument, match="invalid filter 'soup'"):
        check_names({"soup": ("x",)}, {"label"})
