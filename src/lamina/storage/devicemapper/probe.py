"""Whether this host can run devicemapper (blocking). Looks; makes and leaves nothing but loaded kernel modules."""

from __future__ import annotations

from pathlib import Path

from lamina.errors import Unsupported
from lamina.kernel.devicemapper import DeviceMapper
from lamina.storage.devicemapper.base_device import default_fstype

_OLDEST = (4, 27, 0)  # deferred removal


def probe() -> str:
    """What the driver would stand on without options.

    Raises:
        Unsupported: says what is missing, and the remedy.
    """
    mapper = open_mapper()
    try:
        version = mapper.version()
        if version < _OLDEST:
            words = ".".join(map(str, version))
            raise Unsupported(f"the kernel's device-mapper is {words}, older than 4.27", hint="run a newer kernel")
        if not mapper.has_target("thin-pool"):
            raise Unsupported("this kernel has no thin pools", hint="modprobe dm_thin_pool, where the kernel has it")
    finally:
        mapper.close()
    fstype = default_fstype()
    if not Path("/dev/loop-control").exists():
        return f"works on a thin pool (dm.thinpooldev); this kernel has no loop devices; layers on {fstype}"
    return f"works on loop files (slow) or a thin pool (dm.thinpooldev); layers on {fstype}"


def open_mapper() -> DeviceMapper:
    """Raises Unsupported when the kernel has no device-mapper, or will not let us."""
    try:
        return DeviceMapper()
    except PermissionError as error:
        raise Unsupported("the device-mapper is for root only", hint="run as root") from error
    except OSError as error:
        raise Unsupported(
            "device-mapper is not in this kernel", hint="modprobe dm_mod dm_thin_pool, or run a kernel that has them"
        ) from error
