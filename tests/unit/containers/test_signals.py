"""Signals by name and number."""

import pytest

from lamina.containers.signals import parse_signal
from lamina.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("9", 9), ("64", 64), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)],
)
def test_names_and_numbers(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NOPE", "-1", "SIG", "RTMIN+31", "9" * 5000, "_DFL"])
def test_what_is_no_signal_is_told_in_dockers_words(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid signal: "):
        parse_signal(text)
