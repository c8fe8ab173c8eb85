"""The programs really run: amd64 natively where that is the machine, both in an interpreter of the few instructions."""

from __future__ import annotations

import platform
import struct
import subprocess
from pathlib import Path

import pytest

from lamina.registry.hello_program import ARCHITECTURES, Greeting, build
from tests.unit.registry.machines import run

GREETING = Greeting(b"the message\n", b"the line\n", b"/greetings.txt")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_file_is_an_elf_program_of_its_machine(architecture: str) -> None:
    program = build(architecture, GREETING)
    assert program[:6] == b"\x7fELF\x02\x01"
    kind, machine = struct.unpack_from("<HH", program, 16)
    assert (kind, machine) == (2, {"amd64": 62, "arm64": 183}[architecture])
    offset, address, _, in_file, in_memory, page = struct.unpack_from("<QQQQQQ", program, 64 + 8)
    assert (offset, in_file, in_memory) == (0, len(program), len(program))
    assert address % page == 0
    assert len(program) - sum(map(len, (GREETING.message, GREETING.line, GREETING.path))) < 300


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_program_appends_its_line_then_prints_and_exits_with_0(architecture: str) -> None:
    trace = run(architecture, build(architecture, GREETING), open_result=5)
    assert trace == [
        ("open", "/greetings.txt", 0o2001),
        ("write", 5, b"the line\n"),
        ("close", 5),
        ("write", 1, b"the message\n"),
        ("exit", 0),
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_that_cannot_be_opened_changes_nothing_else(architecture: str) -> None:
    trace = run(architecture, build(architecture, GREETING), open_result=-30)
    assert trace == [("open", "/greetings.txt", 0o2001), ("write", 1, b"the message\n"), ("exit", 0)]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an amd64 machine")
def test_the_amd64_program_runs_here(tmp_path: Path) -> None:
    greetings = tmp_path / "greetings"
    greetings.write_bytes(b"before\n")
    program = tmp_path / "hello"
    program.write_bytes(build("amd64", Greeting(b"m" * 3000 + b"\n", b"line\n", str(greetings).encode())))
    program.chmod(0o755)
    ended = subprocess.run([program], capture_output=True, check=True, timeout=10)
    assert (ended.stdout, ended.stderr) == (b"m" * 3000 + b"\n", b"")
    assert greetings.read_bytes() == b"before\nline\n"
    greetings.unlink()
    ended = subprocess.run([program], capture_output=True, check=True, timeout=10)
    assert ended.stdout == b"m" * 3000 + b"\n"
    assert not greetings.exists()
