"""The pump continues exactly where a killed daemon stopped, wherever that was."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.containers.logfile import JournalPump, JournalReader, Mark, journals, json_log, new_journal
from tests.unit.containers.test_journal import recorded

CHUNKS = [(1, b"one\ntwo "), (2, b"err"), (1, b"rest\nlast"), (2, b" more\n"), (1, bytes(range(256)) * 100)]


def pumped(journal: Path, log: Path) -> bytes:
    pump = JournalPump(journal, log)
    pump.finish()
    pump.close()
    pump.close()
    return log.read_bytes()


def test_the_journal_is_gone_when_it_is_finished(tmp_path: Path) -> None:
    journal = new_journal(tmp_path, "c")
    journal.write_bytes(recorded([(1, b"a\n")]))
    assert pumped(journal, json_log(tmp_path, "c")).count(b"\n") == 1
    assert journals(tmp_path) == []


def test_a_second_run_begins_behind_the_first(tmp_path: Path) -> None:
    first = new_journal(tmp_path, "c")
    first.write_bytes(recorded([(1, b"a\n")]))
    once = pumped(first, json_log(tmp_path, "c"))
    second = new_journal(tmp_path, "c")
    assert second.name == f"journal-{len(once)}"
    second.write_bytes(recorded([(1, b"a\n")]))
    assert pumped(second, json_log(tmp_path, "c")) == once * 2


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_a_killed_daemon_had_written_no_byte_is_lost_or_doubled(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        journal, log = directory / "journal-0", directory / "log"
        raw = recorded(CHUNKS)
        journal.write_bytes(raw)
        whole = pumped(journal, log)
        cut = data.draw(st.integers(0, len(whole)))
        log.write_bytes(whole[:cut])
        journal.write_bytes(raw)
        assert pumped(journal, log) == whole


def test_advancing_follows_a_journal_that_grows(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal-0", tmp_path / "log"
    pump = JournalPump(journal, log)
    assert pump.advance() is False
    raw = recorded(CHUNKS)
    for at in range(0, len(raw), 1000):
        with journal.open("ab") as file:
            file.write(raw[at : at + 1000])
        assert pump.advance() is True
    pump.finish()
    pump.close()
    journal.write_bytes(raw)
    assert log.read_bytes() == pumped(journal, tmp_path / "again")


def grown(journal: Path, log: Path) -> JournalPump:
    pump = JournalPump(journal, log, long_bytes=100_000)
    while pump.advance():
        pass
    return pump


def test_a_long_journal_is_freed_and_a_killed_daemon_continues_behind_the_hole(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal-0", tmp_path / "log"
    first = recorded([(1, b"%d\n" % number) for number in range(10_000)])
    journal.write_bytes(first)
    pump = grown(journal, log)
    mark = pump.mark()
    assert mark == Mark(len(first), log.stat().st_size)
    blocks = journal.stat().st_blocks
    pump.free_before(mark)
    assert journal.stat().st_blocks < blocks
    assert pump.mark() is None
    with journal.open("ab") as file:
        file.write(recorded([(1, b"next\n"), (2, b"unended")]))
    pump.advance()
    pump.close()  # killed here

    again = JournalPump(journal, log)
    assert again.start == mark
    assert JournalReader(again.journal_fd, again.start.journal).read() == [(1, b"next\n"), (2, b"unended")]
    again.finish()
    again.close()
    shown = [json.loads(line)["log"] for line in log.read_bytes().splitlines()]
    assert shown == [f"{number}\n" for number in range(10_000)] + ["next\n", "unended"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]


def test_no_place_is_marked_inside_a_line(tmp_path: Path) -> None:
    journal = tmp_path / "journal-0"
    journal.write_bytes(recorded([(1, b"x" * 100 + b"\n")] * 2000 + [(2, b"unended")]))
    assert grown(journal, tmp_path / "log").mark() is None


def test_a_reader_joins_neighbours_and_outlives_the_file(tmp_path: Path) -> None:
    journal = tmp_path / "journal-0"
    journal.write_bytes(recorded([(1, b"a\nb"), (1, b"c\n"), (2, b"d\n")]))
    with journal.open("rb") as file:
        reader = JournalReader(file.fileno())
    journal.unlink()
    assert reader.read() == [(1, b"a\nbc\n"), (2, b"d\n")]
    assert reader.read() is None
    reader.close()
    reader.close()


def test_a_reader_may_begin_at_the_end(tmp_path: Path) -> None:
    journal = tmp_path / "journal-0"
    journal.write_bytes(recorded([(1, b"old\n")]) + b"2026-01-01T00:00:00.0")
    with journal.open("r+b") as file:
        reader = JournalReader(file.fileno())
        reader.skip_to_end()
        file.seek(0, 2)
        file.write(b"+00:00 stdout F new\n")
        file.flush()
        assert reader.read() == [(1, b"new\n")]
    reader.close()
