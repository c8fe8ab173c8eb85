"""Processes held by descriptor."""

import os
import signal

import pytest

from lamina.kernel import pidfd
from lamina.programs import run as programs


def test_a_running_process_has_not_ended_and_a_signalled_one_has() -> None:
    with programs.spawn(["sleep", "60"]) as process:
        held = pidfd.open_pidfd(process.pid)
        try:
            assert not pidfd.has_ended(held)
            assert pidfd.send(held, signal.SIGTERM)
            assert pidfd.wait_ended(held, 10)
            assert pidfd.reap(held) == 128 + signal.SIGTERM
            assert not pidfd.send(held, signal.SIGTERM)
        finally:
            pidfd.close(held)
            pidfd.close(held)


def test_reaping_a_process_that_runs_or_is_not_ours_gives_none() -> None:
    held = pidfd.open_pidfd(os.getpid())
    try:
        assert pidfd.reap(held) is None
    finally:
        pidfd.close(held)


def test_start_time_tells_processes_apart_and_refuses_missing_ones() -> None:
    with programs.spawn(["sleep", "60"]) as process:
        assert pidfd.start_time(process.pid) >= pidfd.start_time(os.getpid())
    with pytest.raises(ProcessLookupError):
        pidfd.start_time(process.pid)


def test_a_child_that_ended_is_a_zombie_until_it_is_collected() -> None:
    with programs.spawn(["true"]) as process:
        assert pidfd.wait_ended(process.fileno(), 10)
        assert process.pid in pidfd.zombie_children()
        pidfd.collect_child(process.pid)
        assert process.pid not in pidfd.zombie_children()
        pidfd.collect_child(process.pid)
