"""Interpreters for the handful of instructions that the hello-world programs use; anything else is an error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

Call: TypeAlias = tuple[object, ...]
_HEADERS = 120


class EndedError(Exception):
    pass


class Memory:
    def __init__(self, program: bytes) -> None:
        (self.entry,) = struct.unpack_from("<Q", program, 24)
        (self.base,) = struct.unpack_from("<Q", program, 64 + 16)
        self.program = program

    def read(self, address: int, size: int) -> bytes:
        found = self.program[address - self.base : address - self.base + size]
        assert len(found) == size, "outside the segment"
        return found

    def text(self, address: int) -> str:
        start = address - self.base
        return self.program[start : self.program.index(b"\0", start)].decode()


def run(architecture: str, program: bytes, *, open_result: int) -> list[Call]:
    """The system calls that the program makes."""
    memory = Memory(program)
    trace: list[Call] = []

    def call(name: str, *arguments: int) -> int:
        if name == "open":
            trace.append(("open", memory.text(arguments[0]), arguments[1]))
            return open_result
        if name == "write":
            trace.append(("write", arguments[0], memory.read(arguments[1], arguments[2])))
            return arguments[2]
        trace.append((name, arguments[0]))
        if name == "exit":
            raise EndedError
        return 0

    machine = {"amd64": _amd64, "arm64": _arm64}[architecture]
    try:
        machine(memory, call)
    except EndedError:
        return trace
    raise AssertionError("unreachable")


def _amd64(memory: Memory, call: Callable[..., int]) -> None:
    names = {0: "eax", 2: "edx", 6: "esi", 7: "edi"}
    registers = dict.fromkeys(names.values(), 0)
    at, is_negative = memory.entry, False
    for _ in range(200):
        opcode = memory.read(at, 1)[0]
        pair = memory.read(at, 2)
        if 0xB8 <= opcode <= 0xBF:
            registers[names[opcode - 0xB8]] = struct.unpack("<I", memory.read(at + 1, 4))[0]
            at += 5
        elif pair == b"\x0f\x05":
            number = {1: "write", 2: "open", 3: "close", 60: "exit"}[registers["eax"]]
            result = call(number, registers["edi"], registers["esi"], registers["edx"])
            registers["eax"] = result & 0xFFFFFFFF
            at += 2
        elif pair == b"\x85\xc0":
            is_negative = registers["eax"] >> 31 == 1
            at += 2
        elif opcode == 0x78:
            at += 2 + (memory.read(at + 1, 1)[0] if is_negative else 0)
        elif pair == b"\x89\xc7":
            registers["edi"] = registers["eax"]
            at += 2
        elif pair == b"\x31\xff":
            registers["edi"] = 0
            at += 2
        else:
            raise AssertionError(f"unknown instruction {pair.hex()}")


def _arm64(memory: Memory, call: Callable[..., int]) -> None:
    registers = [0] * 32
    at = memory.entry
    for _ in range(200):
        (word,) = struct.unpack("<I", memory.read(at, 4))
        rd, imm16 = word & 31, word >> 5 & 0xFFFF
        step = 4
        if word & 0xFFE00000 == 0xD2800000:  # movz
            registers[rd] = imm16
        elif word & 0xFFE00000 == 0xF2A00000:  # movk, lsl 16
            registers[rd] = registers[rd] & ~0xFFFF0000 | imm16 << 16
        elif word & 0xFFE00000 == 0x92800000:  # movn
            registers[rd] = ~imm16 & (1 << 64) - 1
        elif word & 0xFFE0FFE0 == 0xAA0003E0:  # mov register
            registers[rd] = registers[word >> 16 & 31]
        elif word & 0xFFF80000 == 0xB7F80000:  # tbnz, bit 63
            step = (word >> 5 & 0x3FFF) * 4 if registers[rd] >> 63 else 4
        elif word == 0xD4000001:  # svc 0
            number = {64: "write", 56: "open", 57: "close", 93: "exit"}[registers[8]]
            arguments = registers[1:4] if number == "open" else registers[0:3]
            if number == "open":
                assert registers[0] == (1 << 64) - 100
            registers[0] = call(number, *arguments) & (1 << 64) - 1
        else:
            raise AssertionError(f"unknown instruction {word:#x}")
        at += step
