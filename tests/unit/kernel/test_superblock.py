"""File systems made by their own mkfs are recognised, sizes and UUIDs included."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lamina.kernel.superblock import HEAD_BYTES, Superblock, decode_superblock, read_superblock
from lamina.programs import run as programs

UUID = "0051abad-3af6-4e3c-9463-93cdb87d9342"
MADE = [
    pytest.param(
        ["mkfs.ext4", "-q", "-F", "-U", UUID], 64 << 20, Superblock("ext4", UUID, 1024, 64 << 10), id="ext4-small"
    ),
    pytest.param(
        ["mkfs.ext4", "-q", "-F", "-U", UUID, "-b", "4096"], 1 << 30, Superblock("ext4", UUID, 4096, 1 << 18), id="ext4"
    ),
    pytest.param(
        ["mkfs.xfs", "-q", "-m", f"uuid={UUID}"], 1 << 30, Superblock("xfs", UUID, 4096, 1 << 18, 25), id="xfs"
    ),
]


@pytest.mark.parametrize(("command", "size", "expected"), MADE)
def test_what_mkfs_made_is_recognised(command: list[str], size: int, expected: Superblock, tmp_path: Path) -> None:
    program = programs.installed(command[0])
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([program, *command[1:], image], check=True)
    assert read_superblock(image) == expected
    assert expected.size_bytes == size


def test_an_empty_device_holds_none(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(1 << 16))
    assert read_superblock(tmp_path / "image") is None


@pytest.mark.parametrize("length", [0, 3, 4, 100, 1080, 1363])
def test_a_device_that_is_too_short_holds_none(length: int) -> None:
    assert decode_superblock(b"XFSB".ljust(HEAD_BYTES, b"\0")[:length][:100]) is None
    assert decode_superblock((bytes(1080) + b"\x53\xef").ljust(HEAD_BYTES, b"\0")[:length]) is None


def test_noise_is_no_file_system() -> None:
    decode_superblock(b"XFSB" + os.urandom(HEAD_BYTES - 4))
    noise = bytearray(os.urandom(HEAD_BYTES))
    noise[1080:1082] = b"\x53\xef"
    noise[1048:1052] = b"\xff\xff\xff\xff"
    assert decode_superblock(bytes(noise)) is None
