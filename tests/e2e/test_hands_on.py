"""The hands-on sessions of the documentation, typed into a shell line by line, and what they say is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
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


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_a_session_prints_what_the_page_says(page: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = subprocess.Popen(["bash", "-m"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             env={**os.environ, "PATH": path, "TERM": "dumb"}, start_new_session=True)  # fmt: skip
    assert shell.stdin is not None
    assert shell.stdout is not None
    try:
        for command, expected in steps(page):
            mark = uuid.uuid4().hex
            shell.stdin.write(f"{command}\necho {mark} $?\n")
            shell.stdin.flush()
            printed: list[str] = []
            while not (line := shell.stdout.readline().rstrip("\n")).startswith(mark):
                assert shell.poll() is None, f"the shell ended at {command}"
                printed.append(line)
            assert agrees(expected, printed), f"$ {command}\nexpected {expected}\nprinted  {printed}"
    finally:
        shell.stdin.close()
        shell.wait(20)
        subprocess.run(["bash", "-c", f"for p in $(pgrep -s {shell.pid}); do kill $p; done"], check=False)


def test_the_comparison_itself() -> None:
    assert agrees(["a…c", "…", "end"], ["abc", "x", "y", "end"])
    assert not agrees(["a…c"], ["abd"])
    assert not agrees([], ["something"])
