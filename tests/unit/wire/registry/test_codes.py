from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from lamina.wire.registry.codes import Code, Refusal, decode, encode


def test_an_error_body_has_docker_s_form() -> None:
    assert json.loads(encode(Code.BLOB_UNKNOWN, detail={"digest": "x"})) == {
        "errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry", "detail": {"digest": "x"}}]
    }


def test_what_is_encoded_decodes_to_the_same() -> None:
    assert decode(encode(Code.DENIED, "no")) == (Refusal("DENIED", "no"),)


def test_control_characters_of_a_registry_do_not_reach_a_terminal() -> None:
    assert decode(encode(Code.DENIED, "\x1b[31mred\n")) == (Refusal("DENIED", " [31mred "),)


@given(st.binary(max_size=200))
def test_a_body_that_is_no_error_body_says_nothing(body: bytes) -> None:
    assert isinstance(decode(body), tuple)
