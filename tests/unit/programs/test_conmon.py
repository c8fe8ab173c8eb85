"""What is read of a monitor's files, and that no stranger is taken for a monitor."""

import os
from pathlib import Path

import pytest

from lamina.errors import CorruptRecord, Unavailable
from lamina.programs import conmon
from lamina.programs.oci_runtime import OciRuntime

ID = "ab" * 32


def finder(tmp_path: Path) -> conmon.Conmon:
    runtime = OciRuntime(Path("/usr/sbin/runc"), tmp_path / "runtime")
    return conmon.Conmon(Path("/usr/bin/conmon"), runtime, scratch=tmp_path)


def test_the_exit_file_holds_code_and_time(tmp_path: Path) -> None:
    assert conmon.exit_code(tmp_path, ID) is None
    (tmp_path / ID).write_text("137")
    os.utime(tmp_path / ID, ns=(5, 7_000_000_000))
    assert conmon.exit_code(tmp_path, ID) == (137, 7_000_000_000)


def test_an_exit_file_without_number_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / ID).write_text("")
    with pytest.raises(CorruptRecord, match="holds no exit code"):
        conmon.exit_code(tmp_path, ID)


@pytest.mark.parametrize("written", [None, "", "not a number", "this process", "4194304999"])
def test_no_stranger_is_taken_for_the_monitor(tmp_path: Path, written: str | None) -> None:
    if written == "this process":
        written = str(os.getpid())
    if written is not None:
        (tmp_path / "conmon.pid").write_text(written)
        (tmp_path / "pid").write_text(written)
    assert finder(tmp_path).find(ID, tmp_path) is None


def test_resizing_what_does_not_run_is_nothing(tmp_path: Path) -> None:
    conmon.resize(tmp_path, 10, 10)
    os.mkfifo(tmp_path / "ctl")
    conmon.resize(tmp_path, 10, 10)


def test_a_size_reaches_the_fifo_within_what_the_monitor_takes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ctl")
    reader = os.open(tmp_path / "ctl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        conmon.resize(tmp_path, 33, 5000)
        assert os.read(reader, 100) == b"1 33 1000\n"
    finally:
        os.close(reader)


def test_attaching_to_what_does_not_run_says_so_whatever_the_length_of_the_path(tmp_path: Path) -> None:
    bundle = tmp_path / ("x" * 200)
    bundle.mkdir()
    with pytest.raises(Unavailable, match="does not answer"):
        conmon.connect_attach(bundle)
