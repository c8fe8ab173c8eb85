"""Reading logs: tail, rotated parts, half written lines, times."""

import gzip
import json
from pathlib import Path

import pytest

from lamina.containers.log_options import Rotation
from lamina.containers.log_parts import LogParts
from lamina.containers.logfile import Mark, json_log
from lamina.containers.logs import LogReader, sortable, sortable_ns


def line(text: str) -> bytes:
    return json.dumps({"log": text + "\n", "stream": "stdout", "time": "2026-01-01T00:00:00Z"}).encode() + b"\n"


def read_all(reader: LogReader) -> list[str]:
    found: list[str] = []
    while (entries := reader.read()) is not None:
        found += [entry.data.decode().rstrip("\n") for entry in entries]
    return found


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    current = json_log(tmp_path, "c")
    Path(f"{current}.2.gz").write_bytes(gzip.compress(line("1") + line("2")))
    Path(f"{current}.1").write_bytes(line("3") + line("4"))
    current.write_bytes(line("5") + line("6"))
    return tmp_path


def test_rotated_parts_come_first_and_oldest_first(rotated: Path) -> None:
    assert read_all(LogReader(rotated, "c")) == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("lines", range(8))
def test_tail_counts_lines_across_parts(rotated: Path, lines: int) -> None:
    wanted = ["1", "2", "3", "4", "5", "6"]
    assert read_all(LogReader(rotated, "c", tail=lines)) == (wanted[-lines:] if lines else [])


def test_tail_of_a_long_log_reads_backwards(tmp_path: Path) -> None:
    json_log(tmp_path, "c").write_bytes(b"".join(line(f"{number:0>100}") for number in range(10_000)))
    found = read_all(LogReader(tmp_path, "c", tail=4000))
    assert found == [f"{number:0>100}" for number in range(6000, 10_000)]


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    path = json_log(tmp_path, "c")
    path.write_bytes(line("1") + line("2")[:10])
    reader = LogReader(tmp_path, "c")
    assert read_all(reader) == ["1"]
    with path.open("ab") as file:
        file.write(line("2")[10:])
    assert read_all(reader) == ["2"]
    reader.close()
    reader.close()


def test_a_log_that_does_not_exist_yet_is_empty_and_then_is_not(tmp_path: Path) -> None:
    reader = LogReader(tmp_path, "c", tail=10)
    assert reader.read() is None
    json_log(tmp_path, "c").write_bytes(line("1"))
    assert read_all(reader) == ["1"]


def test_the_log_up_to_a_place(tmp_path: Path) -> None:
    assert read_all(LogReader(tmp_path, "c", until=Mark(0, 0))) == []
    json_log(tmp_path, "c").write_bytes(line("1") + line("2"))
    assert read_all(LogReader(tmp_path, "c", until=Mark(0, len(line("1"))))) == ["1"]


@pytest.mark.parametrize("lines", range(9))
def test_a_reader_follows_over_any_number_of_rotations(tmp_path: Path, lines: int) -> None:
    current = json_log(tmp_path, "c")
    parts = LogParts(current, Rotation(1, 4, compress=True))
    parts.write(line("1"))
    reader = LogReader(tmp_path, "c", live=parts)
    assert read_all(reader) == ["1"]
    for number in range(lines):
        parts.write(line(f"late {number}"))
        parts.rotate(lambda _: None)
    parts.write(line("end"))
    # What was put aside and has gone for good is lost to a slow reader; nothing comes twice or out of order.
    wanted = [f"late {number}" for number in range(lines)] + ["end"]
    assert read_all(reader) == (wanted if lines < 4 else [wanted[0], *wanted[-4:]])
    reader.close()
    parts.close()


def test_the_log_up_to_a_place_that_was_put_aside_since(tmp_path: Path) -> None:
    parts = LogParts(json_log(tmp_path, "c"), Rotation(1, 3, compress=True))
    parts.write(line("1"))
    place = Mark(0, parts.size, rotations=parts.rotations)
    parts.write(line("2"))
    assert read_all(LogReader(tmp_path, "c", live=parts, until=place)) == ["1"]
    parts.rotate(lambda _: None)
    parts.write(line("3"))
    assert read_all(LogReader(tmp_path, "c", live=parts, until=place)) == ["1"]
    for _ in range(3):
        parts.rotate(lambda _: None)
    assert read_all(LogReader(tmp_path, "c", live=parts, until=place)) == []


def test_gaps_in_the_numbers_hide_nothing(tmp_path: Path) -> None:
    current = json_log(tmp_path, "c")
    Path(f"{current}.4").write_bytes(line("1"))
    Path(f"{current}.2.gz").write_bytes(gzip.compress(line("2")))
    current.write_bytes(line("3"))
    assert read_all(LogReader(tmp_path, "c")) == ["1", "2", "3"]


def test_times_sort_as_text() -> None:
    stamps = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.09Z", "2026-01-01T00:00:00.1Z", "2026-01-01T00:00:01Z"]
    assert sorted({*stamps}, key=sortable) == stamps
    assert sortable_ns(1767225600_100000000) == sortable("2026-01-01T00:00:00.1Z")
