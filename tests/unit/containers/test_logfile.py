"""The pump continues exactly where a killed daemon stopped, wherever that was."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.containers.log_options import Rotation
from lamina.containers.logfile import JournalPump, JournalReader, Mark, journals, json_log, new_journal
from lamina.containers.logs import LogReader
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
    assert mark == Mark(len(first), log.stat().st_size, log.stat().st_ino)
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
    assert JournalReader(again.journal_fd, again.start).read() == [(1, b"next\n"), (2, b"unended")]
    again.finish()
    again.close()
    shown = [json.loads(line)["log"] for line in log.read_bytes().splitlines()]
    assert shown == [f"{number}\n" for number in range(10_000)] + ["next\n", "unended"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]


def test_a_line_that_waits_for_its_end_goes_into_the_mark(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal-0", tmp_path / "log"
    journal.write_bytes(recorded([(2, b"begun "), *[(1, b"x" * 100 + b"\n")] * 2000]))
    pump = grown(journal, log)
    mark = pump.mark()
    assert mark is not None
    assert [(piece.stream, piece.data) for piece in mark.pending] == [(2, b"begun ")]
    pump.free_before(mark)
    with journal.open("ab") as file:
        file.write(recorded([(2, b"ended\n")]))
    pump.close()  # killed here
    again = JournalPump(journal, log)
    reader = JournalReader(again.journal_fd, again.start)
    assert [reader.read(), reader.read()] == [[(2, b"begun ")], [(2, b"ended\n")]]
    reader.close()
    again.finish()
    again.close()
    assert json.loads(log.read_bytes().splitlines()[-1])["log"] == "begun ended\n"


ROTATION = Rotation(3000, 4, compress=True)


def texts(log: Path) -> list[str]:
    reader = LogReader(log.parent, log.name.removesuffix("-json.log"))
    found: list[str] = []
    while (entries := reader.read()) is not None:
        found += [entry.data.decode() for entry in entries]
    reader.close()
    return found


def test_a_log_stays_within_its_parts(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal-0", json_log(tmp_path, "c")
    journal.write_bytes(recorded([(1, b"%d\n" % number) for number in range(1000)]))
    pump = JournalPump(journal, log, rotation=ROTATION)
    pump.finish()
    pump.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["c-json.log", "c-json.log.1.gz", "c-json.log.2.gz", "c-json.log.3.gz"]
    assert log.stat().st_size < 3200
    kept = [int(text) for text in texts(log)]
    assert kept == list(range(kept[0], 1000))
    assert len(kept) > 100


def test_with_one_part_the_log_begins_again(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal-0", json_log(tmp_path, "c")
    journal.write_bytes(recorded([(1, b"%d\n" % number) for number in range(1000)]))
    pump = JournalPump(journal, log, rotation=Rotation(3000, 1, compress=False))
    pump.finish()
    pump.close()
    assert [path.name for path in tmp_path.iterdir()] == [log.name]
    assert texts(log)[-1] == "999\n"


class Killed(BaseException):
    """Stands for SIGKILL at one system call."""


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("step", range(40))
def test_a_daemon_killed_at_any_step_of_a_rotation_loses_and_doubles_nothing(
    tmp_path: Path, parts: int, compress: bool, step: int
) -> None:
    """A trace function ends the pump at the n-th call that names a file of the log."""
    rotation = Rotation(3000, parts, compress=compress and parts > 1)
    journal, log = tmp_path / "journal-0", json_log(tmp_path, "c")
    wanted = [b"%d\n" % number for number in range(120)]
    journal.write_bytes(recorded([(1, data) for data in wanted]) + recorded([(2, b"unended")]))
    left = [step + 8]

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event in {"open", "os.rename", "os.remove"} and armed and str(tmp_path) in str(arguments[0]):
            left[0] -= 1
            if left[0] == 0:
                raise Killed

    armed = [True]
    sys.addaudithook(audit)
    try:
        pump = JournalPump(journal, log, rotation=rotation)
        pump.finish()
        pump.close()
    except Killed:
        pass
    finally:
        armed.clear()
    if journal.exists():
        again = JournalPump(journal, log, rotation=rotation)
        again.finish()
        again.close()
    found = [text.encode() for text in texts(log)]
    whole = [*wanted, b"unended"]
    assert found == whole[len(whole) - len(found) :]
    assert len(found) == len(whole) if parts == 5 else found
    new_journal(tmp_path, "c")
    assert not [path for path in tmp_path.iterdir() if path.suffix in {".tmp", ".next", ".at"}]


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
