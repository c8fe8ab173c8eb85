"""`--env` and `--env-file`: variables for a process in a container (blocking)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lamina.errors import InvalidArgument


def environment(given: Sequence[str], files: Sequence[str] = ()) -> list[str]:
    """`NAME=VALUE` entries, files first. A name alone is taken from here, and left out where it is not set.

    Raises:
        InvalidArgument: a file that cannot be read, or a name with a space.
    """
    entries = [line for name in files for line in _lines(name)]
    complete = []
    for entry in [*entries, *given]:
        if "=" in entry:
            complete.append(entry)
        elif entry in os.environ:
            complete.append(f"{entry}={os.environ[entry]}")
    return complete


def _lines(name: str) -> list[str]:
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidArgument(f"open {name}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise InvalidArgument(f"env file {name} is no UTF-8: {error}") from error
    lines = [line.lstrip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    for line in kept:
        variable = line.partition("=")[0]
        if not variable or any(letter.isspace() for letter in variable):
            raise InvalidArgument(f"invalid env file ({name}): variable {variable!r} is no name")
    return kept
