from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.wire.registry.challenge import Challenge, decode, encode, pull_scope, push_scope


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", ()),
        ('Basic realm="a registry"', (Challenge("basic", {"realm": "a registry"}),)),
        (
            'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a:pull,push"',
            (
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "registry.example",
                        "scope": "repository:a:pull,push",
                    },
                ),
            ),
        ),
        (
            "Bearer realm=x , Basic realm=y",
            (Challenge("bearer", {"realm": "x"}), Challenge("basic", {"realm": "y"})),
        ),
        ('Basic realm="with \\"quotes\\""', (Challenge("basic", {"realm": 'with "quotes"'}),)),
        ("Negotiate", (Challenge("negotiate", {}),)),
    ],
)
def test_challenges_are_read(header: str, found: tuple[Challenge, ...]) -> None:
    assert decode(header) == found


@given(st.text())
def test_no_header_breaks_the_reader(header: str) -> None:
    decode(header)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.text(st.characters(codec="ascii", categories=("L", "N", "P"))),
        min_size=1,
    )
)
def test_what_is_encoded_decodes_to_the_same(parameters: dict[str, str]) -> None:
    assert decode(encode(Challenge("bearer", parameters))) == (Challenge("bearer", parameters),)


def test_scopes_name_the_repository() -> None:
    assert pull_scope("a/b") == "repository:a/b:pull"
    assert push_scope("a/b") == "repository:a/b:pull,push"
