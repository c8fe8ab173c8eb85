"""Which Linux capabilities a container gets (pure).

Source: capabilities(7); moby oci/caps/utils.go (TweakCapabilities), oci/caps/defaults.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import InvalidArgument, Unsupported

_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_DEFAULT = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""
ALL: tuple[str, ...] = tuple(f"CAP_{name}" for name in _ALL.split())
"""Every capability, in the kernel's order: the position is the bit number."""
DEFAULT: tuple[str, ...] = tuple(f"CAP_{name}" for name in _DEFAULT.split())
"""What a container gets that asks for nothing."""
EVERYTHING = "ALL"


def from_mask(mask: int) -> frozenset[str]:
    """The names of the bits of a capability set, such as the `CapBnd` line of /proc/self/status."""
    return frozenset(name for bit, name in enumerate(ALL) if mask >> bit & 1)


def normalise(names: Sequence[str]) -> list[str]:
    """Upper case with `CAP_`; `ALL` stays.

    Raises:
        InvalidArgument: a name that no kernel knows.
    """
    found: list[str] = []
    for given in names:
        name = given.upper()
        if name != EVERYTHING and not name.startswith("CAP_"):
            name = f"CAP_{name}"
        if name != EVERYTHING and name not in ALL:
            raise InvalidArgument(f'invalid capability: "{given[:80]}"', hint="see capabilities(7) for their names")
        found.append(name)
    return found


def granted(
    add: Sequence[str], drop: Sequence[str], available: frozenset[str], *, privileged: bool = False
) -> tuple[str, ...]:
    """The capabilities of a container that asks for `add` and `drop`.

    What `ALL`, `privileged` or the default stand for is cut to `available` (what the daemon itself has); a capability
    asked for by name that is not available is an error.

    Raises:
        InvalidArgument: a name that no kernel knows.
        Unsupported: an added one that this daemon cannot give.
    """
    adds, drops = normalise(add), normalise(drop)
    everything = [name for name in ALL if name in available]
    if privileged:
        return tuple(everything)
    wanted = [name for name in adds if name != EVERYTHING]
    for name in wanted:
        if name not in available:
            raise Unsupported(
                f"capability not supported by your kernel or not available in the current environment: {name}",
                hint="the daemon can give only what it has itself",
            )
    if EVERYTHING in adds:
        start = everything
    elif EVERYTHING in drops:
        return tuple(dict.fromkeys(wanted))
    else:
        start = [name for name in DEFAULT if name in available]
    kept = [name for name in start if name not in drops]
    return tuple(dict.fromkeys([*kept, *(name for name in wanted if name not in drops or EVERYTHING not in adds)]))
