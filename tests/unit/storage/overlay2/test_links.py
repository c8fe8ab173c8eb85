from __future__ import annotations

import pytest

from lamina.storage.overlay2.links import is_link, is_lower, lower_links, lower_on, short_link

A, B = "A" * 26, "B" * 26


def test_a_short_link_is_26_base32_characters() -> None:
    assert short_link(bytes(17)) == A
    assert is_link(short_link(bytes(range(17))))


@pytest.mark.parametrize("text", ["", "A" * 25, "A" * 27, "a" * 26, "1" * 26, "../" + "A" * 23, A + "\n"])
def test_what_is_no_link(text: str) -> None:
    assert not is_link(text)


def test_a_lower_string_is_uppermost_first() -> None:
    lower = lower_on(B, lower_on(A, ""))
    assert lower == f"l/{B}:l/{A}"
    assert lower_links(lower) == (B, A)
    assert lower_links("") == ()


@pytest.mark.parametrize("text", [f"l/{A}:", f"l/{A}:l", f"/l/{A}", f"l/{A}:l/../x", A])
def test_what_a_crash_or_an_attack_makes_of_lower_is_refused(text: str) -> None:
    assert is_lower(f"l/{A}:l/{B}")
    assert not is_lower(text)
