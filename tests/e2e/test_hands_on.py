"""The hands-on sessions of the documentation, typed into a shell line by line, and what they say is printed."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs" / "hands-on"
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def steps(page: Path) -> list[tuple[str, list[str]]]:
    """Every command of a page with the lines that are said to follow."""
    found: list[tuple[str, list[str]]] = []
    for block in _BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def agrees(expected: list[str], actual: list[str]) -> bool:
    """Line by line; `…` stands for any text within a line, and alone for any number of lines."""
    pattern = "".join("(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in expected)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in actual)) is not None


@contextlib.contextmanager
def shell() -> Iterator[subprocess.Popen[str]]:
    """A shell with `lamina` in its path; what it leaves running is ended."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name not in {"LAMINA_HOST", "DOCKER_HOST"}}
    process = subprocess.Popen(
        ["bash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment, "PATH": path, "TERM": "dumb"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        # The shell leads the session: whatever it started is in it.
        for pid in subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, check=False).stdout.split():
            subprocess.run(["kill", pid], check=False)
        process.wait(20)


def typed(process: subprocess.Popen[str], command: str) -> list[str]:
    """The lines that a command prints."""
    assert process.stdin is not None
    assert process.stdout is not None
    mark = uuid.uuid4().hex
    process.stdin.write(f"{command}\necho {mark}\n")
    process.stdin.flush()
    printed: list[str] = []
    for line in process.stdout:
        before, found, _ = line.rstrip("\n").partition(mark)
        printed += [before] if before or not found else []
        if found:
            return printed
    raise AssertionError(f"the shell ended at {command}: {printed}")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_a_session_prints_what_the_page_says(page: Path) -> None:
    with shell() as process:
        for command, expected in steps(page):
            printed = typed(process, command)
            assert agrees(expected, printed), f"$ {command}\nexpected {expected}\nprinted  {printed}"


def test_the_comparison_itself() -> None:
    assert agrees(["a…c", "…", "end"], ["abc", "x", "y", "end"])
    assert not agrees(["a…c"], ["abd"])
    assert not agrees([], ["something"])
