from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.kernel import loop
from lamina.kernel.loop import LoopFlag, LoopInfo


def test_the_order_for_a_device_is_the_headers_struct() -> None:
    made = loop.encode_config(5, "/data", LoopFlag.AUTOCLEAR)
    assert len(made) == 304
    assert made[:8] == struct.pack("<II", 5, 0)
    assert made[8 + 52 : 8 + 56] == struct.pack("<I", 4)
    assert made[8 + 56 : 8 + 120] == b"/data".ljust(64, b"\0")


def test_a_long_name_is_cut_with_its_zero_kept() -> None:
    made = loop.encode_info("/" + "n" * 100, LoopFlag(0))
    assert len(made) == 232
    assert made[56:120] == b"/" + b"n" * 62 + b"\0"


def test_what_a_device_shows_is_read() -> None:
    raw = struct.pack("<5Q4I", 0xFE00, 77, 0, 512, 0, 3, 0, 0, 4) + b"/a".ljust(64, b"\0") + bytes(112)
    assert loop.decode_info(raw) == LoopInfo(0xFE00, 77, 512, 0, 3, LoopFlag.AUTOCLEAR, "/a")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    yield path
    for device in loop.find(path):
        loop.detach(device)


def size_of(device: Path) -> int:
    with device.open("rb") as file:
        return file.seek(0, os.SEEK_END)


@pytest.mark.root
@pytest.mark.usefixtures("loop_devices")
class TestRealDevices:
    def test_a_file_becomes_a_device_and_is_found_again(self, image: Path) -> None:
        device = loop.attach(image)
        assert loop.find(image) == [device]
        status = device.stat()
        assert loop.backing_file(os.major(status.st_rdev), os.minor(status.st_rdev)) == os.fspath(image)
        with device.open("wb") as file:
            file.write(b"x" * 4096)
        loop.detach(device)
        assert loop.find(image) == []
        assert image.read_bytes()[:4096] == b"x" * 4096

    def test_a_device_grows_with_its_file(self, image: Path) -> None:
        device = loop.attach(image)
        with image.open("r+b") as file:
            file.truncate(2 << 20)
        assert size_of(device) == 1 << 20
        loop.refresh_size(device)
        assert size_of(device) == 2 << 20

    def test_one_that_clears_itself_goes_with_its_last_user(self, image: Path) -> None:
        with loop.attached(image) as device:
            user = os.open(device, os.O_RDONLY)
        assert loop.find(image) == [device]
        os.close(user)
        assert loop.find(image) == []

    def test_a_read_only_device_refuses_writes(self, image: Path) -> None:
        device = loop.attach(image, read_only=True)
        with pytest.raises(OSError, match=r"not permitted|denied|Read-only"), device.open("wb", buffering=0) as file:
            file.write(b"x" * 4096)

    def test_another_file_of_the_same_name_is_not_found(self, image: Path) -> None:
        device = loop.attach(image)
        image.unlink()
        image.write_bytes(bytes(4096))
        assert loop.find(image) == []
        loop.detach(device)

    def test_detaching_twice_is_fine(self, image: Path) -> None:
        device = loop.attach(image)
        loop.detach(device)
        loop.detach(device)


@pytest.fixture
def loop_devices() -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("no loop devices on this kernel")
