"""The journal gives back every byte, and its conversion is Docker's and deterministic."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from lamina.containers.journal import (
    LINE_BYTES,
    JournalParser,
    JsonLines,
    Piece,
    go_string,
    go_time,
    parse_json_line,
)

TIME = b"2026-11-23T21:20:47.688765110+00:00"


def recorded(chunks: list[tuple[int, bytes]]) -> bytes:
    """What conmon writes for these reads: every line of a read is F, the rest of it P."""
    journal = b""
    for stream, data in chunks:
        name = b"stdout" if stream == 1 else b"stderr"
        *lines, rest = data.split(b"\n")
        for line in lines:
            journal += TIME + b" " + name + b" F " + line + b"\n"
        if rest:
            journal += TIME + b" " + name + b" P " + rest + b"\n"
    return journal


def converted(journal: bytes, cuts: list[int]) -> bytes:
    parser, lines, found = JournalParser(), JsonLines(), b""
    places = sorted({min(cut, len(journal)) for cut in cuts} | {0, len(journal)})
    for start, end in itertools.pairwise(places):
        found += b"".join(lines.feed(parser.feed(journal[start:end])))
    return found + b"".join(lines.finish())


chunk_lists = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=60)), max_size=12)


@given(chunk_lists, st.lists(st.integers(0, 2000)))
def test_every_byte_of_each_stream_comes_back(chunks: list[tuple[int, bytes]], cuts: list[int]) -> None:
    journal = recorded(chunks)
    parser, found = JournalParser(), {1: b"", 2: b""}
    places = sorted({min(cut, len(journal)) for cut in cuts} | {0, len(journal)})
    for start, end in itertools.pairwise(places):
        for piece in parser.feed(journal[start:end]):
            found[piece.stream] += piece.data
    for stream in (1, 2):
        assert found[stream] == b"".join(data for one, data in chunks if one == stream)


@given(chunk_lists, st.lists(st.integers(0, 2000)))
def test_the_conversion_does_not_depend_on_how_the_journal_is_read(
    chunks: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    journal = recorded(chunks)
    assert converted(journal, cuts) == converted(journal, [])


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.text(max_size=60).map(str.encode)), max_size=12))
def test_the_log_of_text_reads_back_as_the_text(chunks: list[tuple[int, bytes]]) -> None:
    whole = [(stream, data) for stream, data in chunks if data]
    lines = [json.loads(line) for line in converted(recorded(whole), []).splitlines()]
    for stream, name in ((1, "stdout"), (2, "stderr")):
        shown = "".join(line["log"] for line in lines if line["stream"] == name)
        assert shown.encode() == b"".join(data for one, data in whole if one == stream)


def test_a_line_in_several_reads_is_one_line_with_the_time_of_its_end() -> None:
    lines = JsonLines()
    assert lines.feed([Piece(1, b"2026-01-01T00:00:01.000000000+00:00", b"one ")]) == []
    assert lines.feed([Piece(2, b"2026-01-01T00:00:02.000000000+00:00", b"other\n")]) == [
        b'{"log":"other\\n","stream":"stderr","time":"2026-01-01T00:00:02Z"}\n'
    ]
    assert lines.feed([Piece(1, b"2026-01-01T00:00:03.500000000+00:00", b"line\n")]) == [
        b'{"log":"one line\\n","stream":"stdout","time":"2026-01-01T00:00:03.5Z"}\n'
    ]


def test_long_lines_are_cut_at_16_kib_and_an_unended_one_has_no_newline() -> None:
    def logs(data: bytes) -> list[str]:
        return [json.loads(line)["log"] for line in converted(recorded([(1, data)]), []).splitlines()]

    assert [len(log) for log in logs(b"x" * 40000 + b"\n")] == [LINE_BYTES, LINE_BYTES, 40000 - 2 * LINE_BYTES + 1]
    assert [len(log) for log in logs(b"x" * LINE_BYTES + b"\n")] == [LINE_BYTES + 1]
    assert logs(b"unended") == ["unended"]
    assert "".join(logs(b"y" * 50000)) == "y" * 50000


def test_strings_are_escaped_as_docker_does() -> None:
    assert go_string(b'a\t<b>&"\\\r\n\x00\x7f') == '"a\\u0009\\u003cb\\u003e\\u0026\\"\\\\\\r\\n\\u0000\x7f"'
    assert go_string(b"\xff\xfe\xc3") == '"\\ufffd\\ufffd\\ufffd"'
    assert go_string("\u2028é\ufffd".encode()) == '"\\u2028é\ufffd"'
    assert go_string(b"plain\n") == '"plain\\n"'


def test_times_drop_trailing_zeros() -> None:
    assert go_time("2026-11-23T21:20:47.688765110+00:00") == "2026-11-23T21:20:47.68876511Z"
    assert go_time("2026-11-23T21:20:40.000000000+00:00") == "2026-11-23T21:20:40Z"


def test_broken_lines_of_a_journal_are_skipped() -> None:
    parser = JournalParser()
    assert parser.feed(b"rubbish\n" + TIME + b" stdout F ok\n" + TIME + b" stdmid F x\n\n") == [Piece(1, TIME, b"ok\n")]


@given(st.binary(max_size=200))
def test_any_line_of_a_log_file_is_an_entry_or_nothing(line: bytes) -> None:
    parse_json_line(line)


def test_a_log_line_of_docker_is_an_entry() -> None:
    entry = parse_json_line(b'{"log":"a\\n","stream":"stderr","attrs":{"k":"v"},"time":"2026-01-01T00:00:00Z"}')
    assert entry is not None
    assert (entry.stream, entry.data, entry.attrs, entry.time) == (2, b"a\n", {"k": "v"}, "2026-01-01T00:00:00Z")
    assert parse_json_line(b'{"log":3}') is None
    assert parse_json_line(b"[]") is None
