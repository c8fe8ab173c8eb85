"""Words of Dockerfile instructions."""

from __future__ import annotations

import pytest

from lamina.engine.config_words import expand, split_raw, split_words
from lamina.errors import InvalidArgument

ENV = {"A": "one", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$A", "one"),
        ("${A}x", "onex"),
        ("$Ax", ""),
        ("${B:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${A:+yes}", "yes"),
        ("${B:+yes}", ""),
        ("${B:-$A}", "one"),
        ("'$A'", "$A"),
        ('"$A b"', "one b"),
        ('"\\$A"', "$A"),
        ("\\$A", "$A"),
        ("a $ b", "a $ b"),
        ("$1", "$1"),
    ],
)
def test_variables_and_quotes(text: str, found: str) -> None:
    assert expand(text, ENV) == found


@pytest.mark.parametrize("text", ["'a", '"a', "${A", "${A:?x}", "${}", "${1}"])
def test_what_has_no_end_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        expand(text, ENV)


def test_words_end_at_space_outside_quotes() -> None:
    assert split_words("a  'b c' \"d e\"\tf\\ g", ENV) == ["a", "b c", "d e", "f g"]
    assert split_words("  ", ENV) == []
    assert split_raw("k='a b' l=\"c d\" m=e\\ f") == ["k='a b'", 'l="c d"', "m=e\\ f"]
