"""The bytes of the device-mapper interface, against buffers put together by hand from linux/dm-ioctl.h."""

from __future__ import annotations

import os
import struct

import pytest

from lamina.kernel import dm_ioctl
from lamina.kernel.dm_ioctl import Command, Flag, Target


def header(
    *, name: bytes = b"", flags: int = 0, count: int = 0, size: int = 312, device: int = 0, opened: int = 0
) -> bytes:
    made = struct.pack("<3I", 4, 47, 0) + struct.pack("<II", size, 312) + struct.pack("<IiI", count, opened, flags)
    made += struct.pack("<II", 0, 0) + struct.pack("<Q", device) + name.ljust(128, b"\0") + bytes(129) + bytes(7)
    assert len(made) == 312
    return made


def test_the_ioctl_numbers_are_the_headers() -> None:
    assert dm_ioctl.request(Command.VERSION) == 0xC138FD00
    assert dm_ioctl.request(Command.DEV_CREATE) == 0xC138FD03
    assert dm_ioctl.request(Command.TABLE_LOAD) == 0xC138FD09
    assert dm_ioctl.request(Command.TARGET_MSG) == 0xC138FD0E


def test_a_call_with_a_name_and_flags() -> None:
    made = dm_ioctl.encode("pool", flags=Flag.SUSPEND)
    assert made[:12] == struct.pack("<3I", 4, 0, 0)
    assert made[12:20] == struct.pack("<II", 312, 312)
    assert made[20:32] == struct.pack("<IiI", 0, 0, 2)
    assert made[32:48] == bytes(16)
    assert made[48:176] == b"pool".ljust(128, b"\0")
    assert made[176:] == bytes(136)


def test_udevs_orders_stand_in_the_upper_half_of_the_cookie() -> None:
    assert dm_ioctl.encode("x", udev=0x000E)[32:36] == struct.pack("<I", 0x000E0000)


def test_room_for_an_answer_is_part_of_the_size() -> None:
    made = dm_ioctl.encode("x", room=4096)
    assert len(made) == 312 + 4096
    assert made[12:16] == struct.pack("<I", 312 + 4096)


@pytest.mark.parametrize("length", [128, 200])
def test_a_name_that_the_kernel_would_cut_is_refused(length: int) -> None:
    with pytest.raises(OSError, match="127"):
        dm_ioctl.encode("n" * length)
    assert dm_ioctl.encode("n" * 127)[48:176] == b"n" * 127 + b"\0"


def test_a_target_is_padded_to_eight_bytes_and_says_where_the_next_is() -> None:
    made = dm_ioctl.encode_target(Target(0, 20971520, "thin", "253:0 4"))
    assert made == struct.pack("<QQiI", 0, 20971520, 0, 48) + b"thin".ljust(16, b"\0") + b"253:0 4\0"
    assert len(dm_ioctl.encode_target(Target(0, 1, "thin", "253:0 44"))) == 56


def test_a_message() -> None:
    assert dm_ioctl.encode_message("delete 7") == bytes(8) + b"delete 7\0"


def test_an_answer_is_read() -> None:
    answer = dm_ioctl.decode(header(name=b"docker-254:0-1-pool", flags=1 << 17 | 2, device=0xFD01, opened=3))
    assert answer.version == (4, 47, 0)
    assert answer.name == "docker-254:0-1-pool"
    assert answer.flags == Flag.SUSPEND | Flag.DEFERRED_REMOVE
    assert answer.open_count == 3
    assert dm_ioctl.device_of(answer.device) == (253, 1)


@pytest.mark.parametrize(("major", "minor"), [(253, 0), (253, 255), (253, 256), (253, 1048575), (7, 3)])
def test_device_numbers_are_the_c_librarys(major: int, minor: int) -> None:
    assert dm_ioctl.device_of(os.makedev(major, minor)) == (major, minor)


def test_two_targets_of_a_status() -> None:
    first = struct.pack("<QQiI", 0, 8, 0, 56) + b"thin".ljust(16, b"\0") + b"1024 8191\0".ljust(16, b"\0")
    second = struct.pack("<QQiI", 8, 8, 0, 104) + b"error".ljust(16, b"\0") + b"\0".ljust(8, b"\0")
    found = dm_ioctl.decode_targets(header(count=2) + first + second)
    assert found == [Target(0, 8, "thin", "1024 8191"), Target(8, 8, "error", "")]


def test_names_of_devices() -> None:
    one = struct.pack("<QI", 0xFD00, 24) + b"pool\0".ljust(12, b"\0")
    two = struct.pack("<QI", 0xFD01, 0) + b"docker-a\0".ljust(12, b"\0")
    assert dm_ioctl.decode_names(header() + one + two) == {"pool": 0xFD00, "docker-a": 0xFD01}


def test_no_devices_at_all() -> None:
    assert dm_ioctl.decode_names(header() + bytes(16)) == {}


def test_versions_of_targets() -> None:
    one = struct.pack("<4I", 32, 1, 22, 0) + b"thin-pool\0".ljust(16, b"\0")
    two = struct.pack("<4I", 0, 1, 4, 0) + b"linear\0".ljust(8, b"\0")
    assert dm_ioctl.decode_versions(header() + one + two) == {"thin-pool": (1, 22, 0), "linear": (1, 4, 0)}
