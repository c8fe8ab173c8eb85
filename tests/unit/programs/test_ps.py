"""The columns of ps, for the processes of a container alone."""

import os

import pytest

from lamina.errors import InvalidArgument, ProgramFailed
from lamina.programs import ps

LISTING = """UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 21:00 ?        00:00:01 /sbin/init  splash
root          42       1  0 21:00 ?        00:00:00 sleep 1000
"""


def test_rows_of_the_wanted_processes_keep_their_command_line() -> None:
    titles, rows = ps.rows_of(LISTING, {42})
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert rows == [["root", "42", "1", "0", "21:00", "?", "00:00:00", "sleep 1000"]]


def test_without_a_pid_column_nothing_can_be_told() -> None:
    with pytest.raises(InvalidArgument, match="Couldn't find PID field"):
        ps.rows_of("CMD\nsleep\n", {42})


def test_the_real_ps_shows_this_process() -> None:
    titles, rows = ps.rows_of(ps.listing(["-ef"]), {os.getpid()})
    assert rows[0][titles.index("PID")] == str(os.getpid())
    with pytest.raises(ProgramFailed):
        ps.listing(["--no-such-option"])
