"""The hello-world program as machine code: two ELF files written without a compiler (pure).

Both do the same: append a line to /greetings.txt when that can be opened, write the message to standard output, exit
with status 0. A file is one ELF header, one program header and one segment, mapped readable and executable:

    0        64          120
    | Ehdr   | Phdr      | code | text, greeting, path |

Rules for editors: an instruction is one row, its bytes on the left, what it does on the right. Rows have a fixed
length, so the addresses of what follows the code are known before the code is made.

Source: System V ABI "Program Loading"; elf(5); Linux arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h; Intel SDM volume 2; Arm ARM section C6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_BASE = 0x400000
_HEADERS_BYTES = 64 + 56
_O_WRONLY_APPEND = 0o1 | 0o2000

_EM_X86_64 = 62
_EM_AARCH64 = 183


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the program writes, and where: `line` is appended to the file `path`, `message` goes to standard output."""

    message: bytes
    line: bytes
    path: bytes


@dataclass(frozen=True, slots=True)
class _Addresses:
    message: int
    line: int
    path: int


def build(architecture: str, greeting: Greeting) -> bytes:
    """The executable for `amd64` or `arm64`."""
    machine, page_bytes, code_for = _MACHINES[architecture]
    code_bytes = len(_code(code_for(greeting, _Addresses(0, 0, 0))))
    start = _BASE + _HEADERS_BYTES
    text = start + code_bytes
    addresses = _Addresses(text, text + len(greeting.message), text + len(greeting.message) + len(greeting.line))
    code = _code(code_for(greeting, addresses))
    body = code + greeting.message + greeting.line + greeting.path + b"\0"
    return _headers(machine, page_bytes, start, size_bytes=_HEADERS_BYTES + len(body)) + body


def _code(rows: Sequence[tuple[bytes, str]]) -> bytes:
    return b"".join(row for row, _ in rows)


def _headers(machine: int, page_bytes: int, start: int, *, size_bytes: int) -> bytes:
    identity = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)  # 64 bits, little endian, version 1, System V
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        identity,
        2,  # e_type: ET_EXEC
        machine,
        1,  # e_version
        start,  # e_entry
        64,  # e_phoff: right after this header
        0,  # e_shoff: no sections
        0,  # e_flags
        64,  # e_ehsize
        56,  # e_phentsize
        1,  # e_phnum
        0,  # e_shentsize
        0,  # e_shnum
        0,  # e_shstrndx
    )
    # PT_LOAD, readable and executable: file offset 0 at _BASE.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size_bytes, size_bytes, page_bytes)
    return elf + segment


def _amd64(greeting: Greeting, at: _Addresses) -> list[tuple[bytes, str]]:
    def number(value: int) -> bytes:
        return struct.pack("<I", value)

    append = [
        (b"\x89\xc7", "mov edi, eax       the file"),
        (b"\xbe" + number(at.line), "mov esi, line"),
        (b"\xba" + number(len(greeting.line)), "mov edx, length of line"),
        (b"\xb8" + number(1), "mov eax, 1         write"),
        (b"\x0f\x05", "syscall            leaves edi as it is"),
        (b"\xb8" + number(3), "mov eax, 3         close"),
        (b"\x0f\x05", "syscall"),
    ]
    return [
        (b"\xbf" + number(at.path), "mov edi, path"),
        (b"\xbe" + number(_O_WRONLY_APPEND), "mov esi, O_WRONLY|O_APPEND"),
        (b"\xb8" + number(2), "mov eax, 2         open"),
        (b"\x0f\x05", "syscall"),
        (b"\x85\xc0", "test eax, eax"),
        (b"\x78" + bytes([len(_code(append))]), "js print           no such file, or read-only: go on"),
        *append,
        (b"\xbf" + number(1), "print: mov edi, 1  standard output"),
        (b"\xbe" + number(at.message), "mov esi, message"),
        (b"\xba" + number(len(greeting.message)), "mov edx, length of message"),
        (b"\xb8" + number(1), "mov eax, 1         write"),
        (b"\x0f\x05", "syscall"),
        (b"\x31\xff", "xor edi, edi       status 0"),
        (b"\xb8" + number(60), "mov eax, 60        exit"),
        (b"\x0f\x05", "syscall"),
    ]


def _arm64(greeting: Greeting, at: _Addresses) -> list[tuple[bytes, str]]:
    def word(value: int) -> bytes:
        return struct.pack("<I", value)

    def movz(register: int, value: int) -> bytes:
        return word(0xD2800000 | value << 5 | register)

    def load(register: int, value: int) -> bytes:  # movz low half, movk high half
        return movz(register, value & 0xFFFF) + word(0xF2A00000 | (value >> 16) << 5 | register)

    svc = word(0xD4000001)
    append = [
        (word(0xAA0003F3), "mov x19, x0        the file, kept: x0 will be overwritten"),
        (load(1, at.line), "mov x1, line"),
        (movz(2, len(greeting.line)), "mov x2, length of line"),
        (movz(8, 64), "mov x8, 64         write"),
        (svc, "svc 0"),
        (word(0xAA1303E0), "mov x0, x19"),
        (movz(8, 57), "mov x8, 57         close"),
        (svc, "svc 0"),
    ]
    beyond = len(_code(append)) // 4 + 1
    return [
        (word(0x92800000 | 99 << 5), "mov x0, -100       AT_FDCWD"),
        (load(1, at.path), "mov x1, path"),
        (movz(2, _O_WRONLY_APPEND), "mov x2, O_WRONLY|O_APPEND"),
        (movz(3, 0), "mov x3, 0          no mode: nothing is created"),
        (movz(8, 56), "mov x8, 56         openat"),
        (svc, "svc 0"),
        (word(0xB7F80000 | beyond << 5), "tbnz x0, 63, print no such file, or read-only: go on"),
        *append,
        (movz(0, 1), "print: mov x0, 1   standard output"),
        (load(1, at.message), "mov x1, message"),
        (movz(2, len(greeting.message)), "mov x2, length of message"),
        (movz(8, 64), "mov x8, 64         write"),
        (svc, "svc 0"),
        (movz(0, 0), "mov x0, 0          status 0"),
        (movz(8, 93), "mov x8, 93         exit"),
        (svc, "svc 0"),
    ]


_Code = Callable[[Greeting, _Addresses], list[tuple[bytes, str]]]
_MACHINES: dict[str, tuple[int, int, _Code]] = {
    "amd64": (_EM_X86_64, 0x1000, _amd64),
    "arm64": (_EM_AARCH64, 0x10000, _arm64),
}
"""Machine number, the largest page a kernel of it may have, the code."""

ARCHITECTURES: tuple[str, ...] = tuple(_MACHINES)
