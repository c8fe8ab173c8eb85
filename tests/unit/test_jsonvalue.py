from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InvalidArgument
from lamina.jsonvalue import go_json, in_known_case, parse_object


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_as_it_was(text: str) -> None:
    assert json.loads(go_json({text: text})) == {text: text}


def test_what_go_escapes_is_escaped() -> None:
    assert go_json(["<a & b>", "\u2028", "é"]) == '["\\u003ca \\u0026 b\\u003e","\\u2028","é"]'.encode()


def test_a_name_that_is_no_utf_8_is_shown_with_replacements() -> None:
    shown = go_json({"Path": os.fsdecode(b"/caf\xe9")})
    assert shown == b'{"Path":"/caf\\ufffd"}'
    assert parse_object(shown) == {"Path": "/caf\ufffd"}


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"a":1,"a":2}', b'{"a":' * 100 + b"1" + b"}" * 100, b""])
def test_what_is_no_sound_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_object(data)


def test_keys_are_known_in_any_case_but_the_right_one_wins() -> None:
    assert in_known_case({"detachKeys": "ctrl-p", "Tty": True}, ("DetachKeys", "Tty")) == {
        "DetachKeys": "ctrl-p",
        "Tty": True,
    }
    assert in_known_case({"Tty": True, "tty": False, "other": 1}, ("Tty",)) == {"Tty": True, "tty": False, "other": 1}
