from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InvalidArgument
from lamina.wire.engine.auth import RegistryAuth, decode


def header(fields: object, *, strip: bool = False) -> str:
    encoded = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
    return encoded.rstrip("=") if strip else encoded


@pytest.mark.parametrize("strip", [False, True])
def test_credentials_are_read(strip: bool) -> None:
    found = decode(header({"username": "me", "password": "ünsafe?>", "serveraddress": "r.example"}, strip=strip))
    assert found == RegistryAuth("me", "ünsafe?>", server_address="r.example")


def test_a_combined_user_and_password_is_taken_apart() -> None:
    found = decode(header({"auth": base64.b64encode(b"me:pass:word").decode()}))
    assert found == RegistryAuth("me", "pass:word")


@pytest.mark.parametrize("text", ["", "  ", header({}), header({"serveraddress": "x"}), header(None)])
def test_no_credentials_are_none(text: str) -> None:
    assert decode(text) is None


def test_secrets_do_not_show() -> None:
    shown = repr(RegistryAuth("me", "hunter2", "token3", "token4"))
    assert "me" in shown
    for secret in ("hunter2", "token3", "token4"):
        assert secret not in shown


def test_an_error_does_not_repeat_the_header() -> None:
    secret = base64.urlsafe_b64encode(b'{"password":"hunter2"').decode()
    for text in (secret, "hunter2!", header({"username": 1, "password": "hunter2"})):
        with pytest.raises(InvalidArgument) as failure:
            decode(text)
        assert "hunter2" not in str(failure.value)
        assert failure.value.__cause__ is None or "hunter2" not in str(failure.value.__cause__)


@given(st.text(max_size=100))
def test_any_header_is_read_or_refused(text: str) -> None:
    try:
        decode(text)
    except InvalidArgument:
        return
