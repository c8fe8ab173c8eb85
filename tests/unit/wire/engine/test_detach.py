from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InvalidArgument
from lamina.wire.engine.detach import DetachScanner, parse_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", b"\x10\x11"), ("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-x,a,1", b"\x18a1"), ("ctrl-@", b"\0"),
     ("ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1b\x1c\x1d\x1e\x1f")],
)  # fmt: skip
def test_keys(text, keys):
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ctrl-A", "ab", ",", "a,", "é", "ctrl-p ctrl-q"])
def test_what_is_no_key_is_named(text):
    with pytest.raises(InvalidArgument, match="Invalid detach keys"):
        parse_keys(text)


@given(st.lists(st.binary(max_size=6).map(lambda b: bytes(c % 3 + 97 for c in b)), max_size=8),
       st.sampled_from([b"a", b"ab", b"aab", b"abab", b"aba"]))  # fmt: skip
def test_everything_up_to_the_first_sequence_passes(pieces, keys):
    typed = b"".join(pieces)
    at = typed.find(keys)
    scanner = DetachScanner(keys)
    passed = b"".join(scanner.feed(piece) for piece in pieces) + scanner.flush()
    assert scanner.detached == (at >= 0)
    assert passed == (typed if at < 0 else typed[:at])


def test_without_keys_everything_passes():
    scanner = DetachScanner(b"")
    assert scanner.feed(b"\x10\x11") == b"\x10\x11"
    assert not scanner.detached
