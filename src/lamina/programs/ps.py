"""The host's `ps`, whose columns people expect of `top` (blocking)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lamina.errors import InvalidArgument
from lamina.programs import run as programs


def listing(args: Sequence[str]) -> str:
    """The output of `ps` with these arguments.

    Raises:
        ProgramFailed: ps refuses the arguments.
        Unsupported: ps is not installed.
    """
    # As wide as it gets: people look for whole command lines, and ps would cut them at 80.
    environment = {"PATH": programs.search_path(), "COLUMNS": "32767"}
    return programs.run(("ps", *args), timeout=30, env=environment).stdout.decode(errors="replace")


def rows_of(listing: str, pids: Collection[int]) -> tuple[list[str], list[list[str]]]:
    """Titles and the rows of these processes; the last column takes the rest of its line.

    Source: moby daemon/top_unix.go, parsePSOutput.

    Raises:
        InvalidArgument: there is no PID column.
    """
    lines = listing.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    at = titles.index("PID")
    rows: list[list[str]] = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > at and fields[at].isdecimal() and int(fields[at]) in pids:
            rows.append([field.strip() for field in fields])
    return titles, rows
