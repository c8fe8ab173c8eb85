from __future__ import annotations

import pytest

from lamina.errors import InvalidArgument
from lamina.wire.registry import ranges
from lamina.wire.registry.ranges import Span


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-", Span(0, 10)),
        ("bytes=3-5", Span(3, 6)),
        ("bytes=3-99", Span(3, 10)),
        ("bytes=-4", Span(6, 10)),
        ("bytes=-40", Span(0, 10)),
        ("bytes=5-3", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("nonsense", None),
    ],
)
def test_a_requested_range(header: str, span: Span | None) -> None:
    assert ranges.requested(header, 10) == span


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(header: str) -> None:
    with pytest.raises(InvalidArgument):
        ranges.requested(header, 10)


def test_an_answered_range_is_read_back() -> None:
    assert ranges.answered(ranges.content_range(Span(3, 6), 10)) == Span(3, 6)
    assert ranges.answered("bytes 6-3/10") is None
    assert ranges.answered("bytes */10") is None


@pytest.mark.parametrize("header", ["0-9", "bytes 0-9/*", "bytes=0-9"])
def test_a_chunk_says_where_it_belongs(header: str) -> None:
    assert ranges.chunk(header) == Span(0, 10)


@pytest.mark.parametrize("header", ["", "9-0", "x", "-9", "0-", f"0-{'9' * 40}"])
def test_a_chunk_that_does_not_is_refused(header: str) -> None:
    with pytest.raises(InvalidArgument):
        ranges.chunk(header)
