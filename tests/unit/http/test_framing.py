from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.http.framing import MAX_HEAD_BYTES, BadRequest, RequestFraming, parse_head

PLAIN = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
COUNTED = b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde"
CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"
TRAILED = b"PUT /d HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\nC: d\r\n\r\n"
REQUESTS = [PLAIN, COUNTED, CHUNKED, TRAILED]


def framed(pieces: list[bytes]) -> tuple[list[bytes], list[str]]:
    """What goes on to the parser, request by request, and the targets."""
    framing = RequestFraming()
    done, targets, current = [], [], b""
    for piece in pieces:
        data = piece
        while data:
            step = framing.advance(data)
            current += step.forward
            data = data[step.used :]
            if step.begun:
                targets.append(step.begun.target)
            if step.ended:
                done.append(current)
                current = b""
    return done, targets


@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6), st.data())
def test_requests_are_found_however_they_are_cut(requests, data):
    stream = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    done, targets = framed(pieces)
    assert done == requests
    assert targets == [request.split()[1].decode() for request in requests]


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_framed(data):
    try:
        done, _ = framed([data])
    except BadRequest:
        return
    assert sum(map(len, done)) <= len(data)


def test_empty_lines_before_a_request_are_ignored():
    assert framed([b"\r\n\r\n" + PLAIN + b"\r\n" + PLAIN])[0] == [PLAIN, PLAIN]


def test_a_head_has_a_limit_however_it_comes():
    with pytest.raises(BadRequest) as refused:
        framed([b"GET /", *[b"aaaaaaaa"] * MAX_HEAD_BYTES])
    assert refused.value.status == 431


def test_chunk_lines_and_trailers_have_limits():
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(BadRequest):
        framed([head + b"1;" + b"x" * 5000 + b"\r\n"])
    with pytest.raises(BadRequest):
        framed([head + b"0\r\n" + b"A: b\r\n" * 5000])


def test_lengths_are_read_exactly():
    assert parse_head(b"POST / HTTP/1.1\r\nContent-Length: 1099511627776\r\n\r\n").length == 2**40
    assert parse_head(b"GET / HTTP/1.0\r\n\r\n").length == 0


def test_after_giving_up_everything_is_used_and_nothing_forwarded():
    framing = RequestFraming()
    framing.give_up()
    step = framing.advance(PLAIN)
    assert (step.used, step.forward) == (len(PLAIN), b"")
