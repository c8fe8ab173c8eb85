"""Programs are started, fed, waited for and never left behind."""

import os
import select
import signal
import time
from pathlib import Path

import pytest

from lamina.errors import ProgramFailed, Unsupported
from lamina.programs import run as programs


def test_run_gives_both_outputs_and_the_status() -> None:
    done = programs.run(["sh", "-c", "cat; echo err >&2"], input=b"in\n")
    assert (done.stdout, done.stderr, done.status) == (b"in\n", b"err\n", 0)


def test_a_failing_program_is_an_error_with_its_last_line() -> None:
    with pytest.raises(ProgramFailed, match="sh failed with status 3: second") as caught:
        programs.run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    assert caught.value.status == 3


def test_check_false_gives_the_status_of_a_failing_program() -> None:
    assert programs.run(["sh", "-c", "exit 3"], check=False).status == 3


def test_a_program_that_takes_too_long_is_killed() -> None:
    with pytest.raises(ProgramFailed, match="killed after"):
        programs.run(["sleep", "60"], timeout=0.05)


def test_a_missing_program_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="package conmon"):
        programs.run([tmp_path / "conmon"])


def test_a_missing_working_directory_is_not_blamed_on_the_program(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="working directory"):
        programs.run(["true"], cwd=tmp_path / "gone")


def test_descriptors_are_inherited_only_when_named() -> None:
    named, other = os.pipe()
    try:
        os.set_inheritable(other, True)
        listed = programs.run(["sh", "-c", "ls /proc/self/fd"], pass_fds=[named]).stdout.split()
    finally:
        os.close(named)
        os.close(other)
    assert str(named).encode() in listed
    assert str(other).encode() not in listed


def test_the_descriptor_of_a_process_is_readable_when_it_has_ended() -> None:
    with programs.spawn(["sh", "-c", "read line; exit 7"], stdin=programs.PIPE) as process:
        assert select.select([process.fileno()], [], [], 0)[0] == []
        assert process.poll() is None
        process.close_stdin()
        assert select.select([process.fileno()], [], [], 10)[0]
        assert process.wait() == 7


def test_leaving_the_block_kills_what_still_runs() -> None:
    with programs.spawn(["sleep", "60"]) as process:
        pass
    assert process.wait() == -signal.SIGKILL


def test_the_environment_is_exactly_what_is_given() -> None:
    assert programs.run(["/usr/bin/env"], env={"A": "1"}).stdout == b"A=1\n"


def test_what_is_installed_is_found_and_what_is_not_is_named() -> None:
    assert programs.installed("sh") is not None
    assert programs.installed("no-such-program-here") is None
    with pytest.raises(Unsupported, match="no-such-program-here is not installed"):
        programs.require("no-such-program-here")


def test_much_input_and_output_pass_at_the_same_time() -> None:
    sent = bytes(range(256)) * 20_000
    assert programs.run(["cat"], input=sent).stdout == sent


def test_a_program_that_reads_nothing_of_its_input_is_fine() -> None:
    assert programs.run(["true"], input=b"x" * 1_000_000).status == 0


def test_the_end_of_a_process_is_noticed_at_once() -> None:
    waits = []
    for _ in range(5):
        with programs.spawn(["sleep", "0.1"]) as process:
            before = time.monotonic()
            process.wait(10)
            waits.append(time.monotonic() - before)
    assert min(waits) < 0.12


def test_waiting_is_given_up_but_the_process_goes_on() -> None:
    with programs.spawn(["sleep", "60"]) as process:
        with pytest.raises(ProgramFailed, match="still running"):
            process.wait(0.01)
        assert process.poll() is None
