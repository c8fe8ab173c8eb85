"""Device-mapper devices through /dev/mapper/control: one ioctl per step, no process (blocking).

Devices are named by major:minor in tables, so nothing here needs a node in /dev/mapper, with or without udev.
Source: linux/dm-ioctl.h; Documentation/admin-guide/device-mapper/thin-provisioning.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lamina.kernel import dm_ioctl
from lamina.kernel.dm_ioctl import Command, Flag, Target, UdevFlag, device_of

CONTROL = Path("/dev/mapper/control")
_QUIET = UdevFlag.NO_SUBSYSTEM_RULES | UdevFlag.NO_DISK_RULES | UdevFlag.NO_OTHER_RULES
_LONGEST_ANSWER = 1 << 20
_CONTROL_MINOR = 236  # linux/miscdevice.h, MAPPER_CTRL_MINOR


@dataclass(frozen=True, slots=True)
class Device:
    """A device. `users` is how often it is open: a mount counts once. One that is not live never got its table."""

    name: str
    major: int
    minor: int
    users: int
    is_suspended: bool
    goes_when_closed: bool
    is_live: bool = True

    @property
    def number(self) -> str:
        """As tables name it."""
        return f"{self.major}:{self.minor}"

    @property
    def node(self) -> Path:
        """The node that the kernel itself makes in devtmpfs."""
        return Path(f"/dev/dm-{self.minor}")


class DeviceMapper:
    """The control device, opened once. Thread-safe: the kernel serialises what must be."""

    def __init__(self) -> None:
        """Open /dev/mapper/control, making its node where udev has not.

        Raises:
            OSError: ENOENT or ENXIO when the kernel has no device-mapper.
        """
        self._fd = _open_control()

    @property
    def is_closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        """Devices stay as they are. Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def version(self) -> tuple[int, int, int]:
        """The interface version of the kernel."""
        return dm_ioctl.decode(self._call(Command.VERSION, dm_ioctl.encode())).version

    def targets(self) -> dict[str, tuple[int, int, int]]:
        """The kinds of targets that the kernel has loaded now, with their versions."""
        return dm_ioctl.decode_versions(self._ask(Command.LIST_VERSIONS))

    def has_target(self, kind: str) -> bool:
        """Whether the kernel knows this kind of target; asking loads its module where there is one (Linux 5.4)."""
        try:
            self._call(Command.GET_TARGET_VERSION, dm_ioctl.encode(kind, room=1 << 12))
        except OSError as error:
            if error.errno == errno.ENOTTY:
                return kind in self.targets()
            if error.errno == errno.EINVAL:
                return False
            raise
        return True

    def names(self) -> dict[str, tuple[int, int]]:
        """Every device of this machine, with major and minor."""
        found = dm_ioctl.decode_names(self._ask(Command.LIST_DEVICES))
        return {name: device_of(number) for name, number in found.items()}

    def find(self, name: str) -> Device | None:
        """The device, or None when there is none of this name."""
        try:
            answer = dm_ioctl.decode(self._call(Command.DEV_STATUS, dm_ioctl.encode(name)))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise
        return _device(answer)

    def create(self, name: str, table: Sequence[Target]) -> Device:
        """Make a device with its table and start it; its node is there on return.

        Raises:
            OSError: EBUSY or EEXIST when the name is taken; what the target says of its table (ENODATA: the thin
                device is not in its pool). Nothing is left then.
        """
        self.create_empty(name)
        try:
            self.load(name, table)
            device = self.resume(name)
            _make_node(device)
        except OSError:
            with suppress(OSError):
                self._call(Command.DEV_REMOVE, dm_ioctl.encode(name, udev=_QUIET))
            raise
        return device

    def create_empty(self, name: str) -> None:
        """Make a device without a table. Raises OSError EBUSY when the name is taken."""
        self._call(Command.DEV_CREATE, dm_ioctl.encode(name))

    def load(self, name: str, table: Sequence[Target]) -> None:
        """Give the device a new table, which `resume` puts in force."""
        data = b"".join(dm_ioctl.encode_target(target) for target in table)
        self._call(Command.TABLE_LOAD, dm_ioctl.encode(name, data=data, targets=len(table)))

    def drop_loaded(self, name: str) -> None:
        """Forget a loaded table that was never put in force."""
        self._call(Command.TABLE_CLEAR, dm_ioctl.encode(name))

    def suspend(self, name: str) -> None:
        """Hold back I/O; a file system on the device is frozen, so that a snapshot is whole."""
        self._call(Command.DEV_SUSPEND, dm_ioctl.encode(name, flags=Flag.SUSPEND))

    def resume(self, name: str) -> Device:
        """Let I/O go on, with the new table if one was loaded."""
        return _device(dm_ioctl.decode(self._call(Command.DEV_SUSPEND, dm_ioctl.encode(name, udev=_QUIET))))

    def remove(self, name: str, *, deferred: bool) -> None:
        """Remove the device. With `deferred` one that is open goes when it is closed, and the call succeeds.

        Raises:
            OSError: EBUSY when it is open (or is a pool with devices), ENXIO when there is none.
        """
        flags = Flag.DEFERRED_REMOVE if deferred else 0
        self._call(Command.DEV_REMOVE, dm_ioctl.encode(name, flags=flags, udev=_QUIET))

    def cancel_deferred_removal(self, name: str) -> None:
        """Keep a device that was to go when closed. Raises OSError ENXIO when it has gone already."""
        self.message(name, "@cancel_deferred_remove")

    def message(self, name: str, text: str) -> None:
        """Send a message to the target at the device's beginning."""
        self._call(Command.TARGET_MSG, dm_ioctl.encode(name, data=dm_ioctl.encode_message(text)))

    def status(self, name: str, *, flush: bool = False) -> list[Target]:
        """How each target of the device is. With `flush` a thin pool first puts its metadata on disk."""
        return dm_ioctl.decode_targets(self._ask(Command.TABLE_STATUS, name, 0 if flush else Flag.NOFLUSH))

    def table(self, name: str) -> list[Target]:
        """The device's table; devices in it come as major:minor."""
        return dm_ioctl.decode_targets(self._ask(Command.TABLE_STATUS, name, Flag.STATUS_TABLE | Flag.NOFLUSH))

    def _ask(self, command: Command, name: str = "", flags: int = 0) -> bytearray:
        """A call whose answer may be long: again with more room until it fits."""
        room = 1 << 12
        while True:
            answer = self._call(command, dm_ioctl.encode(name, flags=flags, room=room))
            if not dm_ioctl.decode(answer).flags & Flag.BUFFER_FULL:
                return answer
            if room >= _LONGEST_ANSWER:
                raise OSError(errno.EMSGSIZE, "the device-mapper's answer does not fit", name)
            room *= 4

    def _call(self, command: Command, buffer: bytearray) -> bytearray:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the device-mapper was closed", os.fspath(CONTROL))
        try:
            fcntl.ioctl(self._fd, dm_ioctl.request(command), buffer)
        except OSError as error:
            name = dm_ioctl.decode(buffer).name or os.fspath(CONTROL)
            raise OSError(error.errno, f"{command.name}: {os.strerror(error.errno or 0)}", name) from error
        return buffer


def _device(answer: dm_ioctl.Answer) -> Device:
    major, minor = device_of(answer.device)
    return Device(
        name=answer.name,
        major=major,
        minor=minor,
        users=answer.open_count,
        is_suspended=bool(answer.flags & Flag.SUSPEND),
        goes_when_closed=bool(answer.flags & Flag.DEFERRED_REMOVE),
        is_live=bool(answer.flags & Flag.ACTIVE_PRESENT),
    )


def _open_control() -> int:
    """Opening the node loads the module, where the kernel can; without udev the node itself may be missing."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(CONTROL, flags)
    except FileNotFoundError:
        number = _misc_minor("device-mapper")
    CONTROL.parent.mkdir(0o755, exist_ok=True)
    with suppress(FileExistsError):
        os.mknod(CONTROL, stat.S_IFCHR | 0o600, os.makedev(10, number))
    try:
        return os.open(CONTROL, flags)
    except OSError:
        with suppress(OSError):
            CONTROL.unlink()
        raise


def _misc_minor(name: str) -> int:
    """The minor of a misc device; device-mapper's fixed one when its module is not loaded yet."""
    with open("/proc/misc", encoding="ascii") as file:
        for line in file:
            minor, _, found = line.strip().partition(" ")
            if found == name:
                return int(minor)
    return _CONTROL_MINOR


def _make_node(device: Device) -> None:
    """Make the node where /dev is no devtmpfs, which has made it by itself."""
    node = device.node
    if not node.exists():
        with suppress(FileExistsError):
            os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(device.major, device.minor))
